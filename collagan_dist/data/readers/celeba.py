"""Readers of CelebA as it is published (Img/, Anno/, Eval/), in the wild and aligned.

Pictures are in a folder of Img/, or in the zip or tar archive of that name.
"""

from __future__ import annotations

from pathlib import Path

from collagan_dist.data.readers.annotation_lines import duplicate, read_annotation_lines
from collagan_dist.data.readers.archives import open_folder_or_archive
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.errors import DataError
from collagan_dist.types import MAX_KEY_BYTES, SPLITS, Sample

IN_THE_WILD, ALIGNED = "Img/img_celeba", "Img/img_align_celeba"

LandmarkTable = dict[str, tuple[tuple[float, float], ...]]  # five (x, y) points by file name


def read_in_the_wild(recipe: Recipe) -> list[Sample]:
    """Return the samples of Img/img_celeba, with landmarks from Anno/list_landmarks_celeba.txt."""
    return _read(recipe, IN_THE_WILD, "Anno/list_landmarks_celeba.txt")


def read_aligned(recipe: Recipe) -> list[Sample]:
    """Return the samples of Img/img_align_celeba."""
    # Eyes are at fixed pixels there, which makes inpainting easier than in the paper.
    return _read(recipe, ALIGNED, "Anno/list_landmarks_align_celeba.txt")


def _read(recipe: Recipe, pictures: str, annotation: str) -> list[Sample]:
    root = Path(recipe.root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder that holds Img/, Anno/ and Eval/ (--root)")
    if (source := open_folder_or_archive(root / pictures)) is None:
        name = Path(pictures).name
        raise DataError(
            f"{root / pictures}: no such folder of pictures; unpack CelebA's archive there, or put {name}.zip or {name}.tar beside it"
        )
    landmarks = _read_landmarks(root / annotation)
    splits = _read_splits(root / "Eval/list_eval_partition.txt")
    identities = _read_identities(root / "Anno/identity_CelebA.txt")
    _check_same_names(landmarks, splits, root / annotation, root / "Eval/list_eval_partition.txt")
    samples = [
        Sample(
            key=_key(name, root / annotation),
            source=name,
            path=source.file(name),
            split=splits[name],
            landmarks=points,
            labels=str(root / recipe.labels / f"{Path(name).stem}.png") if recipe.labels else None,
            identity=identities.get(name),
        )
        for name, points in landmarks.items()
        if splits[name] in recipe.splits
    ]
    if not samples:
        raise DataError(f"{root}: no picture belongs to the splits {', '.join(recipe.splits)}; see {root / 'Eval'}")
    return samples


def _read_landmarks(path: Path) -> LandmarkTable:
    """Read a table whose first line is the number of rows and whose second line names the columns."""
    lines = read_annotation_lines(path)
    if len(lines) < 2 or not lines[0][1].strip().isdigit():
        raise DataError(f"{path}:1: must be the number of pictures, then a line of column names; copy the file again")
    announced = int(lines[0][1])
    result: LandmarkTable = {}
    for number, line in lines[2:]:
        name, *fields = line.split()
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
        result[name] = tuple(zip(values[::2], values[1::2], strict=True))
    # Without this check a file that is cut short at a line's end would silently give a smaller data set.
    if len(result) != announced:
        raise DataError(
            f"{path}:1: announces {announced} pictures, the file lists {len(result)}; it is cut short or edited"
        )
    return result


def _read_splits(path: Path) -> dict[str, str]:
    result: dict[str, str] = {}
    for number, line in read_annotation_lines(path):
        name, *rest = line.split()
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
    for number, line in read_annotation_lines(path):
        row = line.split()
        if len(row) != 2:
            raise DataError(f"{path}:{number}: must be a file name and a person's number, found {line!r}")
        result[row[0]] = row[1]
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
