"""How long a rank's own work takes: the time in which it waits for nobody."""

from __future__ import annotations

import time
from types import TracebackType

import torch


class Stopwatch:
    """Adds up seconds inside its `with` blocks, its laps, without the pauses in them.

    On a GPU it is the device's time that counts, by events: the host only hands out work there, and goes ahead of it.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._laps, self._seconds = 0, 0.0
        self._since: float | torch.cuda.Event | None = None
        self._spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def __enter__(self) -> None:
        self._laps += 1
        self._since = self._now()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.pause()

    def pause(self) -> bool:
        """Stop counting; whether it counted, so that who paused it can go on."""
        if self._since is None:
            return False
        since, now, self._since = self._since, self._now(), None
        if isinstance(since, torch.cuda.Event):
            assert isinstance(now, torch.cuda.Event)
            self._spans.append((since, now))
        else:
            assert isinstance(now, float)
            self._seconds += now - since
        return True

    def resume(self) -> None:
        self._since = self._now()

    def pop_mean_seconds(self) -> float:
        """Seconds a lap since the last time; 0 without a lap."""
        if self._spans:
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
