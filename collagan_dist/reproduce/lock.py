"""One reproduction at a time works on a folder. The lock ends with its processes, however they end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from collagan_dist import files
from collagan_dist.errors import ConfigError

_WAIT = 20.0  # seconds: a training whose driver was killed needs a moment to save


@contextmanager
def at_work(out: Path) -> Iterator[int]:
    """The folder to oneself; the number of the locked file, which children may hold too. Raises ConfigError."""
    handle = -1
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be used as a folder ({error.strerror}); give another --out") from None
    try:
        _take(handle, out)
        yield handle
    finally:
        os.close(handle)


def _take(handle: int, out: Path) -> None:
    last = time.monotonic() + _WAIT
    while not files.try_lock(handle):
        if time.monotonic() > last:
            raise ConfigError(
                f"{out}: another `collagan reproduce`, or a training it began, is at work there; wait for its end, or give another --out"
            )
        time.sleep(0.1)
