"""Types of command line arguments that commands share: each turns a text into a value, or says what it should be."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path

from collagan_dist.types import MAX_WORKERS
from collagan_dist.units import parse_duration


def positive_int(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def non_negative_int(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def worker_count(text: str) -> int:
    """Return a number of processes or threads of this machine; 0 stands for a default."""
    if (value := non_negative_int(text)) > MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"{text!r} is not at most {MAX_WORKERS:,}")
    return value


def port_number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: a whole number from 0 to 65535")
    return int(text)


def positive_float(text: str) -> float:
    value = _float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def number_within(least: float, most: float) -> Callable[[str], float]:
    """Return the type of a number between two bounds: what is computed from it stays finite."""

    def number(text: str) -> float:
        value = _float(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least:,.10g} to {most:,.10g}")
        return value

    return number


def model_folder(text: str) -> Path:
    """Return the folder of a run or an exported model; the URL of a run's copies is downloaded first."""
    if "://" not in text:
        return Path(text)
    from collagan_dist.runs.fetched_run import local_run

    return local_run(text)


def fraction(text: str) -> float:
    value = _float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction from 0 to 1")
    return value


def duration(text: str) -> float:
    """Return the seconds of 2h, 90m or 1h30m."""
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no time at all")
    return seconds


def part_of(text: str) -> tuple[int, int]:
    """Return (part, number of parts) of i/n."""
    index, _, count = text.partition("/")
    # Job arrays count from 0 or from 1: n/n is 0/n.
    if not (index.isdigit() and count.isdigit() and int(index) <= int(count) and int(count) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no part: i/n, like 0/16 to 15/16 (or 1/16 to 16/16)")
    return int(index), int(count)


def square(text: str) -> tuple[int, int, int]:
    """Return (left, top, side) of X,Y,SIDE."""
    if not re.fullmatch(r"-?\d{1,6},-?\d{1,6},0*[1-9]\d{0,5}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no square: X,Y,SIDE in pixels, like 420,180,360")
    left, top, side = map(int, text.split(","))
    return left, top, side


def _float(text: str) -> float:
    # NaN fails every comparison, so a text that is no number is refused by the same line as one out of range.
    try:
        return float(text)
    except ValueError:
        return math.nan


def add_max_bad(parser: argparse.ArgumentParser) -> None:
    """Add --max-bad, the one rule for pictures that cannot be used: named, counted, and the others go on."""
    parser.add_argument(
        "--max-bad",
        type=fraction,
        default=0.001,
        help="fraction of unusable pictures to accept (default: %(default)s, and always 10)",
    )
