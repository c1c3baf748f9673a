"""Read a text file of annotations line by line, with the line numbers that error messages need."""

from __future__ import annotations

from pathlib import Path

from collagan_dist.errors import DataError


def read_annotation_lines(path: Path) -> list[tuple[int, str]]:
    """Return (line number, line) of all lines that are not blank. Raises DataError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    except FileNotFoundError:
        raise DataError(f"{path}: this annotation file is missing; copy it from the data set") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from None


def duplicate(location: str, name: str) -> DataError:
    """Return the error for a second line about the same picture."""
    return DataError(f"{location}: {name} is listed for the second time; remove one of its lines")
