"""Read the landmarks of a `folder` data set: a CSV with one row per picture (columns: see shards/README.md)."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass

from collagan_dist.data.readers import archives
from collagan_dist.data.readers.annotation_lines import check_sides, duplicate
from collagan_dist.errors import DataError
from collagan_dist.types import LANDMARKS, SPLITS, File

COORDINATES = tuple(f"{name}_{axis}" for name in LANDMARKS for axis in "xy")
OPTIONAL = ("split", "identity")


@dataclass(frozen=True)
class LandmarkRow:
    """The annotation of one picture, with its line in the file for messages."""

    line: int
    landmarks: tuple[tuple[float, float], ...]
    split: str | None
    identity: str | None


def read_landmark_csv(file: File) -> dict[str, LandmarkRow]:
    """Return the rows by picture name. Raises DataError naming file and line."""
    reader = csv.reader(io.StringIO(_read_text(file)), strict=True)
    rows: dict[str, LandmarkRow] = {}
    try:
        header = [cell.strip() for cell in next(reader, [])]
        _check_header(header, f"{file}:1")
        for cells in reader:
            location = f"{file}:{reader.line_num}"
            if not any(cell.strip() for cell in cells):  # spreadsheets end files with empty rows
                continue
            if len(cells) != len(header):
                raise DataError(f"{location}: has {len(cells)} fields, the header {len(header)}; correct the line")
            fields = dict(zip(header, (cell.strip() for cell in cells), strict=True))
            if fields["file"] in rows:
                raise duplicate(location, fields["file"])
            rows[fields["file"]] = _parse_row(fields, reader.line_num, location)
    except csv.Error as error:
        raise DataError(f"{file}:{reader.line_num}: is no CSV ({error}); correct the line") from None
    check_sides(file, [row.landmarks for row in rows.values()])
    return rows


def _read_text(file: File) -> str:
    try:
        return archives.read_file(file).decode("utf-8-sig")  # spreadsheets write a byte order mark
    except FileNotFoundError:
        raise DataError(f"{file}: this table of landmarks is missing; correct `landmarks` of the recipe") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as text ({error})") from None


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


def _parse_row(fields: dict[str, str], line: int, location: str) -> LandmarkRow:
    values = []
    for name in COORDINATES:
        try:
            value = float(fields[name])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):  # float() accepts "nan" and "inf"
            raise DataError(f"{location}: {name} must be a number of pixels, found {fields[name]!r}")
        values.append(value)
    split = fields.get("split")
    if split is not None and split not in SPLITS:
        raise DataError(f"{location}: split must be {', '.join(SPLITS[:-1])} or {SPLITS[-1]}, found {split!r}")
    return LandmarkRow(line, tuple(zip(values[::2], values[1::2], strict=True)), split, fields.get("identity") or None)
