"""Readers of CelebA, in the wild and aligned: as published (Img/, Anno/, Eval/), flat as torchvision has it, or with CSV files.

Pictures are in a folder, or in the zip or tar archive of that name. Lists may name them by another suffix than they have.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from collagan_dist.data.readers.annotation_lines import check_sides, duplicate, read_annotation_lines, read_csv_rows
from collagan_dist.data.readers.archives import FolderOrArchive, open_folder_or_archive
from collagan_dist.data.readers.picture_format import split_suffix
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.data.readers.samples import Samples
from collagan_dist.errors import DataError
from collagan_dist.types import LANDMARKS, MAX_KEY_BYTES, SPLITS, File

IN_THE_WILD, ALIGNED = "Img/img_celeba", "Img/img_align_celeba"

Rows = dict[str, int]  # the row of each file name in the columns of the samples

_COLUMNS = tuple(
    f"{part}_{axis}" for part in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy"
)
# Eyes of aligned pictures are at nearly fixed pixels: their standard deviation is 2 to 3 of them, in the wild over 100.
_ALIGNED_SPREAD, _MIN_ROWS_TO_JUDGE = 8.0, 20
_INTEGERS = re.compile(r"[+-]?\d{1,9}(?: [+-]?\d{1,9}){9}", re.ASCII)  # `int` alone takes the digits of all scripts
_PLAIN_KEY = re.compile(rf"[!-\-0-~]{{1,{MAX_KEY_BYTES}}}")


def read_in_the_wild(recipe: Recipe) -> Samples:
    """Return the samples of Img/img_celeba, with landmarks from Anno/list_landmarks_celeba.txt."""
    return _read(recipe, IN_THE_WILD, "list_landmarks_celeba")


def read_aligned(recipe: Recipe) -> Samples:
    """Return the samples of Img/img_align_celeba."""
    # Eyes are at fixed pixels there, which makes inpainting easier than in the paper.
    return _read(recipe, ALIGNED, "list_landmarks_align_celeba")


def open_pictures(root: Path, pictures: str) -> FolderOrArchive | None:
    """Return the folder or archive of CelebA's `pictures` below root, None where there is none."""
    name = Path(pictures).name
    source = open_folder_or_archive(root / pictures) or open_folder_or_archive(root / name)
    # Some downloads unpack to img_celeba/img_celeba.
    while source is not None and source.names is None and Path(source.path, name).is_dir():
        source = source.folder(name)
    return source


def _read(recipe: Recipe, pictures: str, annotation: str) -> Samples:
    root = Path(recipe.root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder that holds Img/, Anno/ and Eval/ (--root)")
    if (source := open_pictures(root, pictures)) is None:
        name = Path(pictures).name
        raise DataError(
            f"{root / pictures}: no such folder of pictures; unpack CelebA's archive there, or put {name}.zip or {name}.tar beside it"
        )
    landmark_file, split_file = _find(root, "Anno", annotation), _find(root, "Eval", "list_eval_partition")
    rows, landmarks = read_landmarks(landmark_file)
    splits = _read_splits(split_file, rows, landmark_file)
    identities = _read_identities(_find(root, "Anno", "identity_CelebA"), rows)
    check_sides(str(landmark_file), landmarks)
    if pictures == IN_THE_WILD:
        _refuse_aligned_landmarks(landmark_file, landmarks)
    labels = FolderOrArchive(str(root / recipe.labels)) if recipe.labels else None
    keys = np.array([_key(name, landmark_file) for name in rows], object)
    files = np.array(_match_files(list(rows), source), object)
    samples = Samples(partial(_files_of, source.folder(), labels), keys, files, splits, landmarks, identities)
    if not len(samples := samples.of_splits(recipe.splits)):
        raise DataError(f"{root}: no picture belongs to the splits {', '.join(recipe.splits)}; see {split_file}")
    return samples


def _files_of(
    pictures: FolderOrArchive, labels: FolderOrArchive | None, key: str, name: str
) -> tuple[File, File | None]:
    return pictures.file(name), labels.file(f"{key}.png") if labels is not None else None


def _find(root: Path, folder: str, name: str) -> Path:
    """Return the annotation file of a name: published, flat as torchvision has it, or as CSV. The published place if none is there."""
    places = [parent / f"{name}{suffix}" for suffix in (".txt", ".csv") for parent in (root / folder, root)]
    return next((path for path in places if path.exists()), places[0])


def _match_files(listed: list[str], source: FolderOrArchive) -> list[str]:
    """Return the file of each listed name: itself, else the one of the same stem, whatever its suffix and case."""
    there = source.list_files()
    known = set(there)
    if known.issuperset(listed):
        return listed
    by_stem = {split_suffix(name)[0].lower(): name for name in there if "/" not in name}
    # A picture without a file keeps its name, and is quarantined for being missing.
    return [name if name in known else by_stem.get(split_suffix(name)[0].lower(), name) for name in listed]


def read_landmarks(path: Path) -> tuple[Rows, np.ndarray]:
    """Return the rows by file name, and the (N, 5, 2) landmarks."""
    columns, table, announced = _read_table(path)
    if sorted(columns) != sorted(_COLUMNS):
        raise DataError(
            f"{path}: its columns are {' '.join(columns)!r}, needs {' '.join(_COLUMNS)}; copy the file again"
        )
    rows: Rows = {}
    points = array("d")
    for number, (name, *fields) in table:
        if not _INTEGERS.fullmatch(text := " ".join(fields)):  # CelebA's landmarks are whole pixels
            raise DataError(
                f"{path}:{number}: {name} needs 10 integers (x and y of five points), found {text!r}; correct the line"
            )
        if name in rows:
            raise duplicate(f"{path}:{number}", name)
        rows[name] = len(rows)
        points.extend(map(float, fields))
    # Without this check a file that is cut short at a line's end would silently give a smaller data set.
    if announced is not None and len(rows) != announced:
        raise DataError(
            f"{path}:1: announces {announced} pictures, the file lists {len(rows)}; it is cut short or edited"
        )
    values = np.frombuffer(points, np.float64).reshape(-1, len(_COLUMNS))
    if columns != list(_COLUMNS):
        values = values[:, [columns.index(name) for name in _COLUMNS]]
    return rows, values.reshape(-1, len(LANDMARKS), 2)


def _read_table(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]], int | None]:
    """Return the names of the columns behind the file name, the rows, and how many rows the file announces (not in a CSV)."""
    if path.suffix == ".csv":
        table = read_csv_rows(str(path))
        return next(table, (1, [""]))[1][1:], table, None
    lines = read_annotation_lines(str(path))
    (_, count), (_, columns) = next(lines, (1, "")), next(lines, (2, ""))
    if not (count.isascii() and count.isdigit() and columns) or len(count) > 9:
        raise DataError(f"{path}:1: must be the number of pictures, then a line of column names; copy the file again")
    return columns.split(), ((number, line.split()) for number, line in lines), int(count)


def _refuse_aligned_landmarks(path: Path, landmarks_N52: np.ndarray) -> None:
    eyes = landmarks_N52[:, 0]
    if len(eyes) >= _MIN_ROWS_TO_JUDGE and eyes.std(axis=0).max() < _ALIGNED_SPREAD:
        raise DataError(
            f"{path}: left eyes are at nearly the same pixels in all rows: these are landmarks of the aligned pictures; "
            "copy list_landmarks_celeba.txt, or use dataset: celeba_aligned"
        )


def _read_list(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Return line numbers and fields of a list whose text form has no header."""
    if path.suffix == ".csv":
        table = read_csv_rows(str(path))
        next(table, None)
        return table
    return ((number, line.split()) for number, line in read_annotation_lines(str(path)))


def _read_splits(path: Path, rows: Rows, landmark_file: Path) -> np.ndarray:
    """Return the number in SPLITS of every row. Raises DataError unless the file lists the same pictures."""
    result, unlisted = bytearray([len(SPLITS)]) * len(rows), set()
    for number, (name, *rest) in _read_list(path):
        if len(rest) != 1 or rest[0] not in ("0", "1", "2"):
            raise DataError(
                f"{path}:{number}: {name} needs one split number (0 train, 1 valid, 2 test), found {' '.join(rest)!r}"
            )
        row = rows.get(name)
        if name in unlisted or (row is not None and result[row] < len(SPLITS)):
            raise duplicate(f"{path}:{number}", name)
        if row is None:
            unlisted.add(name)
        else:
            result[row] = int(rest[0])
    # A picture in one list only would be left out without a word.
    missing = {name for name, row in rows.items() if result[row] == len(SPLITS)}
    for names, has, lacks in ((missing, landmark_file, path), (unlisted, path, landmark_file)):
        if names:
            raise DataError(f"{lacks}: {min(names)} is missing ({len(names)} in all), though {has.name} lists it")
    return np.frombuffer(result, np.uint8)


def _read_identities(path: Path, rows: Rows) -> np.ndarray | None:
    """Return the persons' numbers, None where the file is missing."""
    # CelebA hands this file out on request only, so most copies of the data set lack it.
    if not path.exists():
        return None
    result, people = np.full(len(rows), None, object), dict[str, str]()
    for number, (name, *fields) in _read_list(path):
        if len(fields) != 1:
            raise DataError(
                f"{path}:{number}: must be a file name and a person's number, found {' '.join([name, *fields])!r}"
            )
        if (row := rows.get(name)) is not None:
            if result[row] is not None:
                raise duplicate(f"{path}:{number}", name)
            result[row] = people.setdefault(fields[0], fields[0])  # one string a person, not one a row
    return result


def _key(name: str, path: Path) -> str:
    key = split_suffix(name)[0]
    # Webdataset splits names at their first dot, the index of a shard at blanks, and a USTAR name has 100 bytes.
    if not _PLAIN_KEY.fullmatch(key) or "/" in name:
        raise DataError(
            f"{path}: {name!r} cannot name a sample: plain ASCII, one dot, at most {MAX_KEY_BYTES} letters; rename it"
        )
    return key
