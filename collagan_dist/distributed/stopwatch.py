"""Measures how long a rank's own work takes, without the time in which it waits for other ranks."""

from __future__ import annotations

import time
from types import TracebackType

import torch


class Stopwatch:
    """Adds up the seconds inside its `with` blocks (laps), without the pauses in them.

    On a GPU it measures the device's time by events: the host only queues work there and runs ahead of it.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._laps, self._seconds = 0, 0.0
        self._since: float | torch.cuda.Event | None = None
        # Events are read later: reading one waits for the device.
        self._spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    # A lap is one step; several laps make one mean, since a single step is noise.
    def __enter__(self) -> None:
        self._laps += 1
        self._since = self._now()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.pause()

    def pause(self) -> bool:
        """Stop counting. Return whether it was counting, so that the caller resumes only what it paused."""
        if self._since is None:
            return False
        since, now, self._since = self._since, self._now(), None
        if self._cuda:
            self._spans.append((since, now))  # type: ignore[arg-type]
        else:
            self._seconds += now - since  # type: ignore[operator]
        return True

    def resume(self) -> None:
        self._since = self._now()

    def pop_mean_seconds(self) -> float:
        """Return the seconds per lap since the last call and start anew; 0 without a lap."""
        if self._spans:
            # Events of one stream complete in order, so the last one is enough to wait for.
            self._spans[-1][1].synchronize()
            self._seconds += sum(since.elapsed_time(until) for since, until in self._spans) / 1000
        seconds = self._seconds / max(1, self._laps)
        self._laps, self._seconds, self._spans = 0, 0.0, []
        return seconds

    def _now(self) -> float | torch.cuda.Event:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
