"""A file that grows during a run, on a disk that may be full for a while."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)


class AppendFile:
    """Pieces of bytes (lines, events) added to the end of a file, which is created if missing.

    Pieces without room wait in memory, `waiting` is true meanwhile, and one warning says so. Nothing is written once
    `is_current` says that another start owns the folder. `pieces` is what warnings call them.
    """

    def __init__(self, path: Path, is_current: Callable[[], bool] = lambda: True, pieces: str = "lines") -> None:
        self.path, self._is_current, self._pieces = path, is_current, pieces
        self._file: int | None = None
        self._queue: deque[bytes] = deque()
        self.waiting = False
        self._flush()

    def append(self, piece: bytes) -> None:
        self._queue.append(piece)
        self._flush()

    def _flush(self) -> None:
        try:
            if self._file is None and self._is_current():
                self.path.parent.mkdir(exist_ok=True)
                # Unbuffered, so that a kill loses nothing and an error is this piece's.
                self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            while self._file is not None and self._queue and self._is_current():
                written = os.write(self._file, self._queue[0])
                if written < len(self._queue[0]):
                    # A disk that fills up takes a part: the rest goes first when there is room again.
                    self._queue[0] = self._queue[0][written:]
                else:
                    self._queue.popleft()
            self.waiting = False
        # Also network storage that is away: the run goes on, and so will the file.
        except OSError as error:
            if not self.waiting:
                text = "warning: %s: %s; its %s wait until they can be written"
                logger.warning(text, self.path, error.strerror, self._pieces)
            self.waiting = True

    def close(self) -> None:
        self._flush()
        if self._queue and self._is_current():
            logger.warning("warning: %s: %d %s could not be written", self.path, len(self._queue), self._pieces)
        if self._file is not None:
            os.close(self._file)
            self._file = None
