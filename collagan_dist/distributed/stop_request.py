"""Signals that ask a training to stop. Their only list is STOP_SIGNALS; whoever handles or passes on signals takes it from here."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Final

# Whether each, sent again, ends the process at once. A warning does not, however often it comes.
STOP_SIGNALS: Final = {
    signal.SIGINT: True,  # a person
    signal.SIGTERM: True,  # a preemption, a shutdown, `kill`
    signal.SIGHUP: False,  # the terminal is gone. Nobody is left to be impatient, and systemd sends it beside SIGTERM
    signal.SIGUSR2: False,  # a time limit is near
}
# A terminal and a launcher may both deliver one request; signals within this time count as one.
_SAME_REQUEST_SECONDS = 3.0


class StopRequest:
    """True once a signal has asked to stop. The handlers only set a flag; the program then saves and exits.

    A second SIGINT or SIGTERM, made later than the first, ends the process at once, except a SIGTERM if `by_launcher`.
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
            self._previous_handlers = {s: signal.signal(s, self._handle) for s in signals_to_handle()}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
        if not STOP_SIGNALS[signal.Signals(number)]:
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


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt on a stop signal, for work that may end at once and only has to clean up."""
    former = {s: signal.signal(s, signal.default_int_handler) for s in signals_to_handle()}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def signals_to_handle() -> list[signal.Signals]:
    """Return the stop signals, without SIGHUP where it is ignored, as under nohup: there it asks for nothing."""
    # torchrun passes SIGHUP on even under nohup, but then its ranks do not find it ignored.
    return [s for s in STOP_SIGNALS if s != signal.SIGHUP or signal.getsignal(s) != signal.SIG_IGN]
