"""Readers of CelebA, in the wild and aligned: as published (Img/, Anno/, Eval/), flat as torchvision has it, or with CSV files.

Pictures are in a folder, or in the zip or tar archive of that name. Lists may name them by another suffix than they have.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from collagan_dist.data.readers.annotation_lines import check_sides, duplicate, read_annotation_lines
from collagan_dist.data.readers.archives import FolderOrArchive, open_folder_or_archive
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.errors import DataError
from collagan_dist.types import MAX_KEY_BYTES, SPLITS, Sample

IN_THE_WILD, ALIGNED = "Img/img_celeba", "Img/img_align_celeba"

LandmarkTable = dict[str, tuple[tuple[float, float], ...]]  # five (x, y) points by file name
Row = tuple[int, str, list[str]]  # line number, file name, fields

_COLUMNS = tuple(
    f"{part}_{axis}" for part in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy"
)
# Eyes of aligned pictures are at nearly fixed pixels: their standard deviation is 2 to 3 of them, in the wild over 100.
_ALIGNED_SPREAD, _MIN_ROWS_TO_JUDGE = 8.0, 20


def read_in_the_wild(recipe: Recipe) -> list[Sample]:
    """Return the samples of Img/img_celeba, with landmarks from Anno/list_landmarks_celeba.txt."""
    return _read(recipe, IN_THE_WILD, "list_landmarks_celeba")


def read_aligned(recipe: Recipe) -> list[Sample]:
    """Return the samples of Img/img_align_celeba."""
    # Eyes are at fixed pixels there, which makes inpainting easier than in the paper.
    return _read(recipe, ALIGNED, "list_landmarks_align_celeba")


def open_pictures(root: Path, pictures: str) -> FolderOrArchive | None:
    """Return the folder or archive of CelebA's `pictures` below root, None where there is none."""
    name = Path(pictures).name
    source = open_folder_or_archive(root / pictures) or open_folder_or_archive(root / name)
    # Some downloads unpack to img_celeba/img_celeba.
    while source is not None and source.names is None and Path(source.path, name).is_dir():
        source = FolderOrArchive(str(Path(source.path, name)))
    return source


def _read(recipe: Recipe, pictures: str, annotation: str) -> list[Sample]:
    root = Path(recipe.root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder that holds Img/, Anno/ and Eval/ (--root)")
    if (source := open_pictures(root, pictures)) is None:
        name = Path(pictures).name
        raise DataError(
            f"{root / pictures}: no such folder of pictures; unpack CelebA's archive there, or put {name}.zip or {name}.tar beside it"
        )
    landmark_file, split_file = _find(root, "Anno", annotation), _find(root, "Eval", "list_eval_partition")
    landmarks, splits = _read_landmarks(landmark_file), _read_splits(split_file)
    identities = _read_identities(_find(root, "Anno", "identity_CelebA"))
    _check_same_names(landmarks, splits, landmark_file, split_file)
    check_sides(str(landmark_file), list(landmarks.values()))
    if pictures == IN_THE_WILD:
        _refuse_aligned_landmarks(landmark_file, landmarks)
    files = _match_files(landmarks, source)
    samples = [
        Sample(
            key=_key(name, landmark_file),
            source=files[name],
            path=source.file(files[name]),
            split=splits[name],
            landmarks=points,
            labels=str(root / recipe.labels / f"{Path(name).stem}.png") if recipe.labels else None,
            identity=identities.get(name),
        )
        for name, points in landmarks.items()
        if splits[name] in recipe.splits
    ]
    if not samples:
        raise DataError(f"{root}: no picture belongs to the splits {', '.join(recipe.splits)}; see {split_file}")
    return samples


def _find(root: Path, folder: str, name: str) -> Path:
    """Return the annotation file of a name: published, flat as torchvision has it, or as CSV. The published place if none is there."""
    places = [parent / f"{name}{suffix}" for suffix in (".txt", ".csv") for parent in (root / folder, root)]
    return next((path for path in places if path.exists()), places[0])


def _match_files(listed: LandmarkTable, source: FolderOrArchive) -> dict[str, str]:
    """Return the file of each listed name: itself, else the one of the same stem, whatever its suffix and case."""
    there = source.list_files()
    by_stem = {PurePosixPath(name).stem.lower(): name for name in there if "/" not in name}
    known = set(there)
    # A picture without a file keeps its name, and is quarantined for being missing.
    return {name: name if name in known else by_stem.get(PurePosixPath(name).stem.lower(), name) for name in listed}


def _read_landmarks(path: Path) -> LandmarkTable:
    columns, rows, announced = _read_table(path)
    if sorted(columns) != sorted(_COLUMNS):
        raise DataError(
            f"{path}: its columns are {' '.join(columns)!r}, needs {' '.join(_COLUMNS)}; copy the file again"
        )
    order = [columns.index(name) for name in _COLUMNS]
    result: LandmarkTable = {}
    for number, name, fields in rows:
        try:  # CelebA's landmarks are whole pixels
            values = [float(int(f)) for f in fields]
        except ValueError:
            values = []
        if len(values) != 10:
            raise DataError(
                f"{path}:{number}: {name} needs 10 integers (x and y of five points), found {' '.join(fields)!r}; correct the line"
            )
        if name in result:
            raise duplicate(f"{path}:{number}", name)
        values = [values[at] for at in order]
        result[name] = tuple(zip(values[::2], values[1::2], strict=True))
    # Without this check a file that is cut short at a line's end would silently give a smaller data set.
    if announced is not None and len(result) != announced:
        raise DataError(
            f"{path}:1: announces {announced} pictures, the file lists {len(result)}; it is cut short or edited"
        )
    return result


def _read_table(path: Path) -> tuple[list[str], Iterator[Row], int | None]:
    """Return the names of the columns behind the file name, the rows, and how many rows the file announces (not in a CSV)."""
    lines = read_annotation_lines(path)
    if path.suffix == ".csv":
        header = lines[0][1].split(",") if lines else []
        return [name.strip() for name in header[1:]], _csv_rows(lines[1:]), None
    if len(lines) < 2 or not lines[0][1].strip().isdigit():
        raise DataError(f"{path}:1: must be the number of pictures, then a line of column names; copy the file again")
    return lines[1][1].split(), _text_rows(lines[2:]), int(lines[0][1])


def _text_rows(lines: list[tuple[int, str]]) -> Iterator[Row]:
    for number, line in lines:
        name, *fields = line.split()
        yield number, name, fields


def _csv_rows(lines: list[tuple[int, str]]) -> Iterator[Row]:
    for (number, _), cells in zip(lines, csv.reader(line for _, line in lines), strict=False):
        yield number, cells[0].strip(), [cell.strip() for cell in cells[1:]]


def _refuse_aligned_landmarks(path: Path, landmarks: LandmarkTable) -> None:
    eyes = np.array([points[0] for points in landmarks.values()])
    if len(eyes) >= _MIN_ROWS_TO_JUDGE and eyes.std(axis=0).max() < _ALIGNED_SPREAD:
        raise DataError(
            f"{path}: left eyes are at nearly the same pixels in all rows: these are landmarks of the aligned pictures; "
            "copy list_landmarks_celeba.txt, or use dataset: celeba_aligned"
        )


def _read_splits(path: Path) -> dict[str, str]:
    result: dict[str, str] = {}
    lines = read_annotation_lines(path)
    rows = _csv_rows(lines[1:]) if path.suffix == ".csv" else _text_rows(lines)
    for number, name, rest in rows:
        if len(rest) != 1 or rest[0] not in ("0", "1", "2"):
            raise DataError(
                f"{path}:{number}: {name} needs one split number (0 train, 1 valid, 2 test), found {' '.join(rest)!r}"
            )
        if name in result:
            raise duplicate(f"{path}:{number}", name)
        result[name] = SPLITS[int(rest[0])]
    return result


def _read_identities(path: Path) -> dict[str, str]:
    """Return the persons' numbers by file name; empty where the file is missing."""
    # CelebA hands this file out on request only, so most copies of the data set lack it.
    if not path.exists():
        return {}
    result = {}
    lines = read_annotation_lines(path)
    for number, name, fields in _csv_rows(lines[1:]) if path.suffix == ".csv" else _text_rows(lines):
        if len(fields) != 1:
            raise DataError(
                f"{path}:{number}: must be a file name and a person's number, found {' '.join([name, *fields])!r}"
            )
        result[name] = fields[0]
    return result


def _check_same_names(landmarks: LandmarkTable, splits: dict[str, str], landmark_file: Path, split_file: Path) -> None:
    unlisted = set(landmarks) - set(splits), set(splits) - set(landmarks)
    # A picture in one list only would be left out without a word.
    for names, has, lacks in zip(unlisted, (landmark_file, split_file), (split_file, landmark_file), strict=True):
        if names:
            raise DataError(f"{lacks}: {min(names)} is missing ({len(names)} in all), though {has.name} lists it")


def _key(name: str, path: Path) -> str:
    key = Path(name).stem
    # Webdataset splits names at their first dot, and a USTAR name has 100 bytes.
    if not key.isascii() or "." in key or "/" in name or len(key) > MAX_KEY_BYTES or key.startswith(".") or not key:
        raise DataError(
            f"{path}: {name!r} cannot name a sample: plain ASCII, one dot, at most {MAX_KEY_BYTES} letters; rename it"
        )
    return key
