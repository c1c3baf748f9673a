"""Being asked to stop: USR2 before a time limit, TERM on preemption, INT from a person. Handlers only set a flag."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
_ONE_EVENT = 3.0  # seconds in which a terminal and a launcher may both deliver the same request


class StopRequest:
    """True once a signal asked to stop. A second request, made later than _ONE_EVENT after the first, ends at once."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._former: dict[int, object] = {}

    def __bool__(self) -> bool:
        return self._since is not None

    def __enter__(self) -> StopRequest:
        self._former = {s: signal.signal(s, self._note) for s in _SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._since is None:
            self._since = now
        elif now - self._since > _ONE_EVENT and number != signal.SIGUSR2:
            os._exit(128 + number)
