"""The table of landmarks of a `folder` data set: a CSV with a row for each picture."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass

from collagan_dist.data.readers import archives
from collagan_dist.errors import DataError
from collagan_dist.types import LANDMARKS, SPLITS, File

NUMBERS = tuple(f"{name}_{axis}" for name in LANDMARKS for axis in "xy")
OPTIONAL = ("split", "identity")


@dataclass(frozen=True)
class LandmarkRow:
    """What the table says of one picture, and the line where it says it."""

    line: int
    landmarks: tuple[tuple[float, float], ...]
    split: str | None
    identity: str | None


def read_landmark_csv(file: File) -> dict[str, LandmarkRow]:
    """Rows by the name of their picture. Raises DataError naming file and line."""
    reader = csv.reader(io.StringIO(_text(file)), strict=True)
    rows: dict[str, LandmarkRow] = {}
    try:
        header = [cell.strip() for cell in next(reader, [])]
        _check_header(header, f"{file}:1")
        for cells in reader:
            place = f"{file}:{reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise DataError(f"{place}: has {len(cells)} fields, the header {len(header)}; correct the line")
            fields = dict(zip(header, (cell.strip() for cell in cells), strict=True))
            if fields["file"] in rows:
                raise DataError(f"{place}: {fields['file']} stands here for the second time; remove one of its lines")
            rows[fields["file"]] = _row(fields, reader.line_num, place)
    except csv.Error as error:
        raise DataError(f"{file}:{reader.line_num}: is no CSV ({error}); correct the line") from None
    _check_sides(file, rows)
    return rows


def _text(file: File) -> str:
    try:
        return archives.read(file).decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{file}: this table of landmarks is missing; correct `landmarks` of the recipe") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as text ({error})") from None


def _check_header(header: list[str], place: str) -> None:
    needed = {"file", *NUMBERS}
    lacking = [name for name in ("file", *NUMBERS) if name not in header]
    unknown = [name for name in header if name not in needed and name not in OPTIONAL]
    twice = [name for name in header if header.count(name) > 1]
    for names, wrong in ((lacking, "is missing"), (unknown, "is unknown"), (twice, "is there twice")):
        if names:
            raise DataError(
                f"{place}: column {names[0]!r} {wrong}; the header is file,{','.join(NUMBERS)} and, if wanted, {','.join(OPTIONAL)}"
            )


def _row(fields: dict[str, str], line: int, place: str) -> LandmarkRow:
    values = []
    for name in NUMBERS:
        try:
            value = float(fields[name])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(f"{place}: {name} must be a number of pixels, found {fields[name]!r}")
        values.append(value)
    split = fields.get("split")
    if split is not None and split not in SPLITS:
        raise DataError(f"{place}: split must be {', '.join(SPLITS[:-1])} or {SPLITS[-1]}, found {split!r}")
    return LandmarkRow(line, tuple(zip(values[::2], values[1::2], strict=True)), split, fields.get("identity") or None)


def _check_sides(file: File, rows: dict[str, LandmarkRow]) -> None:
    """Left is left in the picture. Tables that mean the person's left are common, and nothing later would notice."""
    crossed = sum(row.landmarks[0][0] > row.landmarks[1][0] for row in rows.values())
    if crossed > len(rows) / 2:
        raise DataError(
            f"{file}: in {crossed} of {len(rows)} rows the left eye lies right of the right eye; "
            "left is left in the picture, so exchange the columns of left and right"
        )
