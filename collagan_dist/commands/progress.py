"""Progress of a command on stderr: a bar on a terminal, lines in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

_LOG_SECONDS = 30.0  # between lines in a log


@contextmanager
def busy(title: str, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Show on a terminal that work of unknown length goes on, and for how long; nothing of it stays, and a log has nothing.

    Yields an advance(done, total) without effect. Ranks that share a terminal with rank 0 are not `shown`.
    """
    if not (shown and sys.stderr.isatty()):
        yield _ignore
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (rich.SpinnerColumn(), rich.TextColumn(title), rich.TimeElapsedColumn())
    with rich.Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        bar.add_task(title, total=None)
        yield _ignore


def _rate(speed: float) -> str:
    # Slow work would otherwise seem to stand.
    return f"{speed:.0f}/s" if speed >= 1 or speed == 0 else f"{speed:.2g}/s"


def _ignore(done: int, total: int) -> None:
    pass


@contextmanager
def progress(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yield advance(done, total), which shows how far the work is, how fast it goes and how long it will take."""
    from rich import progress as rich
    from rich.console import Console

    # stderr: a command's result on stdout may be piped.
    console = Console(file=sys.stderr)
    # Everything but the bar takes up to 56 columns; where numbers do not fit, rich would cut them.
    width = max(4, min(40, console.width - 56))
    columns = (rich.TextColumn(title), rich.BarColumn(width), rich.MofNCompleteColumn(), rich.TextColumn(unit))
    times = (rich.TextColumn("{task.fields[rate]}"), rich.TimeElapsedColumn(), "ETA", rich.TimeRemainingColumn())
    bar = rich.Progress(*columns, *times, console=console, disable=not console.is_terminal)
    task = bar.add_task(title, total=None, rate="")
    start = last_line = time.monotonic()
    done_before: int | None = None

    def advance(done: int, total: int) -> None:
        nonlocal done_before, last_line
        if done_before is None:
            # An earlier start of the command did these; they are not part of the rate.
            done_before = done
            bar.reset(task, total=total, completed=done)
            return
        now = time.monotonic()
        speed = (done - done_before) / max(now - start, 1e-9)
        bar.update(task, completed=done, total=total, rate=_rate(speed))
        if not console.is_terminal and now - last_line >= _LOG_SECONDS:
            last_line = now
            left = (total - done) / speed if speed else 0.0
            logger.info(f"{title}: {done} of {total} {unit}, {_rate(speed)}, ETA {left:.0f} s")

    with bar:
        yield advance
