"""Signals that ask a training to stop: SIGUSR2 before a time limit, SIGTERM on preemption, SIGINT from a person."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
# A terminal and a launcher may both deliver one request; signals within this time count as one.
_SAME_REQUEST_SECONDS = 3.0


class StopRequest:
    """True once a signal has asked to stop. The handlers only set a flag; the program then saves and exits.

    SIGUSR2 is a warning, however often it comes. A second SIGINT or SIGTERM, made later than the first, ends the process
    at once, except a SIGTERM if `by_launcher`.
    """

    def __init__(self, by_launcher: bool = False) -> None:
        self._by_launcher = by_launcher
        self._requested = False
        self._first_request: float | None = None
        self._previous_handlers: dict[int, object] = {}

    def __bool__(self) -> bool:
        return self._requested

    def __enter__(self) -> StopRequest:
        # Python allows signal handlers in the main thread only; a Ray worker runs its function in another.
        if threading.current_thread() is threading.main_thread():
            self._previous_handlers = {s: signal.signal(s, self._handle) for s in _SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
        if number == signal.SIGUSR2:
            return
        now = time.monotonic()
        if self._first_request is None:
            self._first_request = now
            return
        # Slurm sends SIGTERM when a preemption begins and again when its grace time ends, and torchrun forwards what Slurm
        # has sent already. Both kill what does not exit, so until then saving is worth more than exiting early.
        forwarded = self._by_launcher and number == signal.SIGTERM
        if now - self._first_request > _SAME_REQUEST_SECONDS and not forwarded:
            # Not sys.exit: whoever asks twice does not want to wait for what is being saved.
            os._exit(128 + number)
