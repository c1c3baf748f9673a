"""Lines of an annotation file, with their numbers for messages."""

from __future__ import annotations

from pathlib import Path

from collagan_dist.errors import DataError


def read_annotation_lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not blank. Raises DataError where there is no such text."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    except FileNotFoundError:
        raise DataError(f"{path}: this annotation file is missing; copy it from the data set") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from None
