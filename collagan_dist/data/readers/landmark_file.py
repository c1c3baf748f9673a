"""Read landmarks of photographs that are no data set: CelebA's list, or JSON as `collagan complete` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, RootModel

from collagan_dist import structured
from collagan_dist.data.readers.celeba import read_landmarks
from collagan_dist.data.readers.picture_format import PICTURE_SUFFIXES, split_suffix
from collagan_dist.errors import DataError
from collagan_dist.types import LANDMARKS

Point = tuple[float, float]
_Points = Annotated[list[Point], Field(min_length=len(LANDMARKS), max_length=len(LANDMARKS))]
_MEND = 'give [[x, y], …] of five points for one picture, or {"NAME": [[x, y], …], …}'


class _LandmarksByName(RootModel[dict[str, _Points] | _Points]):
    """The five points of one picture, or of many by their names."""


def read_landmark_file(path: Path, picture: str | None) -> dict[str, list[Point]]:
    """Return landmarks by names of pictures without their suffixes. Points without a name are those of `picture`.

    A file whose name ends in .json is JSON, any other one a list like CelebA's. Raises DataError.
    """
    if path.suffix.lower() != ".json":
        rows, points_N52 = read_landmarks(path)
        return {split_suffix(name)[0]: [(x, y) for x, y in points_N52[row].tolist()] for name, row in rows.items()}
    found = structured.read(path, _LandmarksByName, DataError, _MEND).root
    if isinstance(found, dict):
        return {
            split_suffix(name)[0] if Path(name).suffix.lower() in PICTURE_SUFFIXES else name: points
            for name, points in found.items()
        }
    if picture is None:
        raise DataError(f"{path}: has the landmarks of one picture, but the input is a folder; {_MEND}")
    return {picture: found}
