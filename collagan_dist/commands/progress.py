"""What commands share: progress, and a number of workers."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

_LINE_EVERY = 30.0  # seconds between lines in a log


def workers(text: str) -> int:
    """A number of processes, 0 for one a core."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes")
    return int(text)


def count(text: str) -> int:
    """How many of something, at least one."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


@contextmanager
def progress(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Gives advance(done, total): a bar with rate and ETA on a terminal, a line now and then in a log.

    What is done at the first call was done before, and does not count in the rate.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(file=sys.stderr)
    bar = Progress(
        TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TextColumn("{task.fields[rate]}"), TimeElapsedColumn(),
        TextColumn("ETA"), TimeRemainingColumn(), console=console, disable=not console.is_terminal,
    )  # fmt: skip
    task = bar.add_task(title, total=None, rate="")
    began = told = time.monotonic()
    first: int | None = None

    def advance(done: int, total: int) -> None:
        nonlocal first, told
        if first is None:
            first = done
            bar.reset(task, total=total, completed=done)
            return
        now = time.monotonic()
        speed = (done - first) / max(now - began, 1e-9)
        bar.update(task, completed=done, total=total, rate=f"{speed:.0f}/s")
        if not console.is_terminal and now - told >= _LINE_EVERY:
            told = now
            left = (total - done) / speed if speed else 0.0
            logger.info(f"{title}: {done} of {total} {unit}, {speed:.0f}/s, ETA {left:.0f} s")

    with bar:
        yield advance
