"""A file that grows while a run goes on, and that may be without room for a while."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path


class AppendFile:
    """Pieces of bytes added to the end of a file, which is made where it is missing.

    Pieces for which there is no room wait for it, and a warning says so once; `waits` is true as long. Nothing is written once
    `mine` says that the folder is another start's. `pieces` is what the warnings call them.
    """

    def __init__(self, path: Path, mine: Callable[[], bool] = lambda: True, pieces: str = "lines") -> None:
        self.path, self._mine, self._pieces = path, mine, pieces
        self._file: int | None = None
        self._waiting: deque[bytes] = deque()
        self.waits = False
        self._flush()

    def add(self, piece: bytes) -> None:
        self._waiting.append(piece)
        self._flush()

    def _flush(self) -> None:
        """Write what waits, as far as it goes: a piece of which only a part fitted is completed later."""
        try:
            if self._file is None and self._mine():
                self.path.parent.mkdir(exist_ok=True)
                self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            while self._file is not None and self._waiting and self._mine():
                written = os.write(self._file, self._waiting[0])
                if written < len(self._waiting[0]):
                    self._waiting[0] = self._waiting[0][written:]
                else:
                    self._waiting.popleft()
            self.waits = False
        except OSError as error:
            if not self.waits:
                text = f"warning: {self.path}: {error.strerror}; its {self._pieces} wait until they can be written"
                print(text, file=sys.stderr, flush=True)
            self.waits = True

    def close(self) -> None:
        self._flush()
        if self._waiting and self._mine():
            text = f"warning: {self.path}: {len(self._waiting)} {self._pieces} could not be written"
            print(text, file=sys.stderr, flush=True)
        if self._file is not None:
            os.close(self._file)
            self._file = None
