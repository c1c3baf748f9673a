"""The progress of a training for people: a bar on a terminal, a line of text per log line elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from collagan_dist.runs.metrics_log import without_nonfinite
from collagan_dist.units import format_duration


class ProgressBar:
    """Shows steps `start` to `stop_at`, of `batch` pictures, on stderr."""

    def __init__(self, start: int, stop_at: int, batch: int, console: Console | None = None) -> None:
        self.stop_at, self.batch = stop_at, batch
        self._left = stop_at - start
        self._first_done = time.perf_counter()
        self._steps = 0
        # Standard output is for results.
        self._console = console or Console(file=sys.stderr)
        self._bar: Progress | None = None
        if self._console.is_terminal:  # a log file would get a new line for each redraw
            # A narrow terminal has a short bar, and no share of waiting; rich would cut the numbers.
            width = max(4, min(40, self._console.width - 62 - 15 * self._is_wide))
            columns = (SpinnerColumn(), TextColumn("training"), BarColumn(width), MofNCompleteColumn())
            texts = (TextColumn("{task.fields[eta]}"), TextColumn("{task.fields[text]}"))
            self._bar = Progress(*columns, *texts, console=self._console)
            self._task = self._bar.add_task("", total=stop_at, completed=start, eta="", text="")
            self._bar.start()

    @property
    def _is_wide(self) -> bool:
        return not self._console.is_terminal or self._console.width >= 100

    def advance(self) -> None:
        """Move the bar by one step."""
        self._steps += 1
        if self._steps == 1:
            self._first_done = time.perf_counter()  # the first step prepares much that later ones find done
        elif self._steps == 2:
            rate = self.batch / max(time.perf_counter() - self._first_done, 1e-9)
            self._show(f"first steps: {rate:.0f} images/s")
        if self._bar is not None:
            self._bar.update(self._task, advance=1, eta=self._eta())

    def show(self, step: int, record: dict[str, Any]) -> None:
        """Show the numbers of a train line."""
        record = without_nonfinite(record)
        text = f"{record['images_per_s']:.0f} images/s  loss {record['loss/total']:.3f}"
        if self._is_wide:
            text += f"  data wait {record['data_wait_share']:.0%}"
        self._show(text if self._bar is not None else f"step {step}/{self.stop_at}  {text}  {self._eta()}")

    def _show(self, text: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, text=text)
        else:
            self._console.print(text, highlight=False)  # rich would colour the numbers

    def _eta(self) -> str:
        """Return the time that is left, at the mean rate of all of this start's steps but the first."""
        # rich takes the rate of the last 30 seconds, which an evaluation or a checkpoint in between changes by a half.
        if self._steps < 2:
            return ""
        seconds = (time.perf_counter() - self._first_done) / (self._steps - 1) * (self._left - self._steps)
        return f"ETA {format_duration(round(max(seconds, 0)))}"

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
