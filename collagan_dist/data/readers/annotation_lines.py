"""Read a text file or CSV of annotations row by row, with the line numbers that messages need; checks of what was read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import numpy as np

from collagan_dist.data.readers import archives
from collagan_dist.errors import DataError
from collagan_dist.types import File

_MISSING = "this annotation file is missing; copy it from the data set"


def read_annotation_lines(file: File, missing: str = _MISSING) -> Iterator[tuple[int, str]]:
    """Yield (line number, line without blanks around it) of all lines that are not blank.

    Raises DataError; `missing` is what it says of a file that is not there.
    """
    try:
        content = io.BytesIO(archives.read_file(file))
        # Decoded as it is read: a list of a million lines is large. Not by utf-8-sig, which takes a part of a mark for no text.
        for number, line in enumerate(io.TextIOWrapper(content, "utf-8"), 1):
            # Editors of Windows write a byte order mark.
            if line := (line.removeprefix("\ufeff") if number == 1 else line).strip():
                yield number, line
    except FileNotFoundError:
        raise DataError(f"{file}: {missing}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as text ({error})") from None


def read_csv_rows(file: File, missing: str = _MISSING) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells without blanks around them) of all rows that are not empty. Raises DataError."""
    number = 1

    def lines() -> Iterator[str]:
        nonlocal number
        for number, line in read_annotation_lines(file, missing):  # noqa: B007
            yield line

    try:
        for cells in csv.reader(lines(), strict=True):
            cells = [cell.strip() for cell in cells]
            if any(cells):  # spreadsheets end files with empty rows
                yield number, cells
    except csv.Error as error:
        raise DataError(f"{file}:{number}: is no CSV ({error}); correct the line") from None


def check_sides(file: File, landmarks_N52: np.ndarray) -> None:
    """Raise DataError if left and right are exchanged in a table of landmarks."""
    # Left is left in the picture. Tables that mean the person's left are common, and nothing later would notice.
    # More than half of the rows: a head that is upside down crosses its eyes, too.
    crossed = int((landmarks_N52[:, 0, 0] > landmarks_N52[:, 1, 0]).sum())
    if crossed > len(landmarks_N52) / 2:
        raise DataError(
            f"{file}: in {crossed} of {len(landmarks_N52)} rows the left eye lies right of the right eye; "
            "left is left in the picture, so exchange the columns of left and right"
        )


def duplicate(location: str, name: str) -> DataError:
    """Return the error for a second line about the same picture."""
    return DataError(f"{location}: {name} is listed for the second time; remove one of its lines")
