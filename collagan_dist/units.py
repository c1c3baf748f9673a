"""How lengths of time, numbers of bytes and large counts are written for people: the same on the terminal and in reports."""

from __future__ import annotations

import re

_SECONDS = {"d": 86400, "h": 3600, "min": 60, "m": 60, "s": 1}


def format_duration(seconds: float) -> str:
    """Return "13.5 min": three digits of the largest unit that fits."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def parse_duration(text: str) -> float:
    """Return the seconds of "2h", "90m", "1h30m" or "1.5 h" (units d, h, m or min, s). Raises ValueError."""
    number = r"(\d+(?:\.\d+)?|\.\d+)\s*(d|h|min|m|s)\s*"
    if not re.fullmatch(f"(?:{number})+", text, re.ASCII):
        raise ValueError(f"{text!r} is no duration: a number with d, h, m or s, like 2h, 90m or 1h30m")
    return sum(float(count) * _SECONDS[unit] for count, unit in re.findall(number, text, re.ASCII))


def format_bytes(count: float) -> str:
    """Return "1.2 MB", in powers of 1000 as disks and networks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def format_count(count: int) -> str:
    """Return "41.9 million" for a large count, a smaller one with all of its digits."""
    return f"{count / 1e6:.3g} million" if count >= 1e6 else f"{count:,}"


def format_things(count: int, name: str) -> str:
    """Return "1 shard" or "3 shards", for a name with a regular plural."""
    return f"{count} {name}" if count == 1 else f"{count} {name}s"
