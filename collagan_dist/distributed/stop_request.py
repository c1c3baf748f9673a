"""Being asked to stop: USR2 before a time limit, TERM on preemption, INT from a person. Handlers only set a flag."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
_ONE_EVENT = 3.0  # seconds in which a terminal and a launcher may both deliver the same request


class StopRequest:
    """True once a signal asked to stop; what was asked for is to save and leave.

    USR2 is a warning, however often it comes. After INT or TERM a second one, made later than _ONE_EVENT, ends at once
    with the last good checkpoint. Not so a second TERM where `by_launcher`: Slurm sends one when a preemption begins and one
    when its grace ends, torchrun passes on what Slurm sent already, and both kill what does not leave; what is being
    saved until then is worth more than leaving early.
    """

    def __init__(self, by_launcher: bool = False) -> None:
        self._by_launcher = by_launcher
        self._asked = False
        self._urged: float | None = None
        self._former: dict[int, object] = {}

    def __bool__(self) -> bool:
        return self._asked

    def __enter__(self) -> StopRequest:
        if (
            threading.current_thread() is threading.main_thread()
        ):  # elsewhere (a Ray worker) signals are not ours to take
            self._former = {s: signal.signal(s, self._note) for s in _SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        if number == signal.SIGUSR2:
            return
        now = time.monotonic()
        if self._urged is None:
            self._urged = now
        elif now - self._urged > _ONE_EVENT and not (self._by_launcher and number == signal.SIGTERM):
            os._exit(128 + number)
