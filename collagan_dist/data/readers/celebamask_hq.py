"""Reader of CelebAMask-HQ as it is published: CelebA-HQ-img/, CelebAMask-HQ-mask-anno/ and the mapping to CelebA.

The data set has label maps (a mask per part of the face) and no landmarks.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from collagan_dist.data.readers.annotation_lines import duplicate, read_annotation_lines
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.data.readers.samples import Samples
from collagan_dist.errors import DataError
from collagan_dist.types import SPLITS, File, PartMasks

PICTURES = "CelebA-HQ-img"
MASKS = "CelebAMask-HQ-mask-anno"
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
MASKS_PER_FOLDER = 2000

_MAX_DIGITS = 9  # Python refuses to read thousands of them
_HEADER = ["idx", "orig_idx", "orig_file"]
# The last picture of each split of CelebA. A picture keeps CelebA's split, so that a model is never tested on a face
# that it was trained on in the other data set.
_LAST_OF_SPLIT = {"train": 162770, "valid": 182637, "test": 202599}


def read_celebamask_hq(recipe: Recipe) -> Samples:
    """Return a sample for each row of the mapping. Neither pictures nor masks are opened."""
    root = Path(recipe.root)
    # Masks are optional one by one, so a missing folder would give a data set without any.
    for folder in (root, root / PICTURES, root / MASKS):
        if not folder.is_dir():
            raise DataError(
                f"{folder}: no such folder; unpack CelebAMask-HQ and give the folder that holds {PICTURES}/ (--root)"
            )
    splits = _read_splits(root / MAPPING)
    samples = Samples(
        partial(_files_of, str(root / PICTURES), str(root / MASKS)),
        np.array([f"{number:05d}" for number in splits], object),
        np.array([f"{number}.jpg" for number in splits], object),
        np.array([SPLITS.index(split) for split in splits.values()], np.uint8),
    ).of_splits(recipe.splits)
    if not len(samples):
        raise DataError(f"{root / MAPPING}: no picture belongs to the splits {', '.join(recipe.splits)}")
    return samples


def _files_of(pictures: str, masks: str, key: str, name: str) -> tuple[File, PartMasks]:
    return f"{pictures}/{name}", PartMasks(f"{masks}/{int(key) // MASKS_PER_FOLDER}/{key}")


def _read_splits(path: Path) -> dict[int, str]:
    """Return the split of every picture number."""
    lines = read_annotation_lines(str(path))
    if next(lines, (1, ""))[1].split() != _HEADER:
        raise DataError(f"{path}:1: must be the line `{' '.join(_HEADER)}`; copy the file again")
    result: dict[int, str] = {}
    for number, line in lines:
        row = line.split()
        # `isdecimal` alone accepts digits of other scripts, which would name other files.
        if len(row) != 3 or not all(v.isdecimal() and v.isascii() and len(v) <= _MAX_DIGITS for v in row[:2]):
            raise DataError(f"{path}:{number}: must be two numbers and CelebA's file name, found {line!r}")
        if int(row[0]) in result:
            raise duplicate(f"{path}:{number}", f"picture {row[0]}")
        result[int(row[0])] = _split_in_celeba(row[2], f"{path}:{number}")
    return result


def _split_in_celeba(name: str, location: str) -> str:
    stem, _, suffix = name.partition(".")
    number = int(stem) if stem.isascii() and stem.isdecimal() and len(stem) <= _MAX_DIGITS else 0
    if suffix != "jpg" or not 1 <= number <= _LAST_OF_SPLIT["test"]:
        raise DataError(
            f"{location}: {name!r} is no picture of CelebA (000001.jpg to {_LAST_OF_SPLIT['test']}.jpg); correct the line"
        )
    return next(split for split, last in _LAST_OF_SPLIT.items() if number <= last)
