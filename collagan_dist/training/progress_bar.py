"""The progress of a training for people: a bar on a terminal, a line of text per log line elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from collagan_dist.runs.metrics_log import without_nonfinite


class ProgressBar:
    """Shows steps `start` to `stop_at`, of `batch` pictures, on stderr."""

    def __init__(self, start: int, stop_at: int, batch: int) -> None:
        self.start, self.stop_at, self.batch = start, stop_at, batch
        self._began = self._first_done = time.perf_counter()
        self._steps = 0
        self._has_line = False
        # Standard output is for results.
        self._console = Console(file=sys.stderr)
        self._bar: Progress | None = None
        if self._console.is_terminal:  # a log file would get a new line for each redraw
            self._bar = Progress(
                SpinnerColumn(), TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("ETA"),
                TimeRemainingColumn(), TextColumn("{task.fields[text]}"), console=self._console
            )  # fmt: skip
            self._task = self._bar.add_task("", total=stop_at, completed=start, text="")
            self._bar.start()

    def advance(self) -> None:
        """Move the bar by one step."""
        self._steps += 1
        if self._steps == 1:
            self._first_done = time.perf_counter()  # the first step prepares much that later ones find done
        elif not self._has_line:
            rate = (self._steps - 1) * self.batch / max(time.perf_counter() - self._first_done, 1e-9)
            text = f"{rate:.0f} images/s"
            if self._bar is not None:
                self._bar.update(self._task, text=text)
            elif self._steps == 2:
                self._console.print(f"first steps: {text}", highlight=False)
        if self._bar is not None:
            self._bar.advance(self._task)

    def show(self, step: int, record: dict[str, Any]) -> None:
        """Show the numbers of a train line."""
        self._has_line = True
        record = without_nonfinite(record)
        text = f"{record['images_per_s']:.0f} images/s  data wait {record['data_wait_share']:.0%}  loss {record['loss/total']:.3f}"
        if self._bar is not None:
            self._bar.update(self._task, text=text)
            return
        # By this start's own steps: a resumed run counts from where it went on.
        seconds_left = (time.perf_counter() - self._began) / max(1, step - self.start) * (self.stop_at - step)
        # rich would colour the numbers.
        self._console.print(f"step {step}/{self.stop_at}  {text}  ETA {seconds_left:.0f} s", highlight=False)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
