"""Read a text file of annotations line by line, with the line numbers that error messages need; checks of what was read."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from collagan_dist.errors import DataError
from collagan_dist.types import File

Points = tuple[tuple[float, float], ...]


def read_annotation_lines(path: Path) -> list[tuple[int, str]]:
    """Return (line number, line) of all lines that are not blank. Raises DataError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # editors of Windows write a byte order mark
        return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    except FileNotFoundError:
        raise DataError(f"{path}: this annotation file is missing; copy it from the data set") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from None


def check_sides(file: File, landmarks: Collection[Points]) -> None:
    """Raise DataError if left and right are exchanged in a table of landmarks."""
    # Left is left in the picture. Tables that mean the person's left are common, and nothing later would notice.
    # More than half of the rows: a head that is upside down crosses its eyes, too.
    crossed = sum(points[0][0] > points[1][0] for points in landmarks)
    if crossed > len(landmarks) / 2:
        raise DataError(
            f"{file}: in {crossed} of {len(landmarks)} rows the left eye lies right of the right eye; "
            "left is left in the picture, so exchange the columns of left and right"
        )


def duplicate(location: str, name: str) -> DataError:
    """Return the error for a second line about the same picture."""
    return DataError(f"{location}: {name} is listed for the second time; remove one of its lines")
