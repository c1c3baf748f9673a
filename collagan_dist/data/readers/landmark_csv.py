"""Read the landmarks of a `folder` data set: a CSV with one row per picture (columns: see shards/README.md)."""

from __future__ import annotations

import math
import re
from array import array
from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from collagan_dist.data.readers.annotation_lines import check_sides, duplicate, read_csv_rows
from collagan_dist.errors import DataError
from collagan_dist.types import LANDMARKS, SPLITS, File

COORDINATES = tuple(f"{name}_{axis}" for name in LANDMARKS for axis in "xy")
OPTIONAL = ("split", "identity")
# `float` alone takes NaN, infinity, underscores and the digits of all scripts too.
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_COORDINATE, _ROW = (re.compile(pattern, re.ASCII) for pattern in (_NUMBER, rf"{_NUMBER}(?:,{_NUMBER}){{9}}"))


@dataclass(frozen=True)
class LandmarkTable:
    """The annotation of pictures by columns. `rows` gives each picture's place in them, `lines` its line in the file."""

    rows: dict[str, int]
    lines: np.ndarray
    landmarks_N52: np.ndarray
    splits: np.ndarray | None  # numbers in SPLITS
    identities: np.ndarray | None

    def columns(self, names: list[str]) -> tuple[np.ndarray | None, np.ndarray, np.ndarray | None]:
        """Return splits, landmarks and identities of these pictures."""
        order = np.array([self.rows[name] for name in names], np.int64)
        splits, identities = (
            column[order] if column is not None else None for column in (self.splits, self.identities)
        )
        return splits, self.landmarks_N52[order], identities


def read_landmark_csv(file: File) -> LandmarkTable:
    """Read the table. Raises DataError naming file and line."""
    table = read_csv_rows(file, "this table of landmarks is missing; correct `landmarks` of the recipe")
    _, header = next(table, (1, []))
    _check_header(header, f"{file}:1")
    name_at, coordinates = header.index("file"), itemgetter(*map(header.index, COORDINATES))
    split_at, identity_at = (header.index(name) if name in header else None for name in OPTIONAL)
    rows: dict[str, int] = {}
    lines, points, splits, identities = array("q"), array("d"), bytearray(), []
    people: dict[str, str | None] = {"": None}  # one string a person, not one a row
    for line, cells in table:
        location = f"{file}:{line}"
        if len(cells) != len(header):
            raise DataError(f"{location}: has {len(cells)} fields, the header {len(header)}; correct the line")
        name = cells[name_at]
        if rows.setdefault(name, len(rows)) != len(lines):
            raise duplicate(location, name)
        lines.append(line)
        points.extend(_parse_points(coordinates(cells), location))
        if split_at is not None:
            splits.append(_parse_split(cells[split_at], location))
        if identity_at is not None:
            identities.append(people.setdefault(cells[identity_at], cells[identity_at]))
    landmarks = np.frombuffer(points, np.float64).reshape(-1, len(LANDMARKS), 2)
    check_sides(file, landmarks)
    return LandmarkTable(
        rows, np.frombuffer(lines, np.int64), landmarks,
        np.frombuffer(splits, np.uint8) if split_at is not None else None,
        np.array(identities, object) if identity_at is not None else None,
    )  # fmt: skip


def _check_header(header: list[str], location: str) -> None:
    required = ("file", *COORDINATES)
    missing = [name for name in required if name not in header]
    unknown = [name for name in header if name not in required and name not in OPTIONAL]
    repeated = [name for name in header if header.count(name) > 1]
    for names, problem in ((missing, "is missing"), (unknown, "is unknown"), (repeated, "is there twice")):
        if names:
            raise DataError(
                f"{location}: column {names[0]!r} {problem}; the header is file,{','.join(COORDINATES)} and, if wanted, {','.join(OPTIONAL)}"
            )


def _parse_points(cells: tuple[str, ...], location: str) -> list[float]:
    if _ROW.fullmatch(",".join(cells)):
        values = list(map(float, cells))
        if math.isfinite(max(values)) and math.isfinite(min(values)):
            return values
    name, cell = next(
        pair
        for pair in zip(COORDINATES, cells, strict=True)
        if not _COORDINATE.fullmatch(pair[1]) or not math.isfinite(float(pair[1]))
    )
    raise DataError(f"{location}: {name} must be a number of pixels, found {cell!r}")


def _parse_split(cell: str, location: str) -> int:
    if cell not in SPLITS:
        raise DataError(f"{location}: split must be {', '.join(SPLITS[:-1])} or {SPLITS[-1]}, found {cell!r}")
    return SPLITS.index(cell)
