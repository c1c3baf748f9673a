"""A bounded cache of downloaded shards on local disk, shared by all processes of a node and by all runs.

FOLDER/<sha256>.tar                     a complete copy; its modification time is that of its last use.
FOLDER/.<sha256>.tar.<bytes>.partial    a download of at most that many bytes; its process holds the flock.
FOLDER/.lock                            held while files are claimed, renamed or removed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from collagan_dist.errors import CollaganError, ConfigError, DataError
from collagan_dist.units import format_bytes

_COPY = re.compile(r"[0-9a-f]{64}\.(tar|idx)")
_PARTIAL = re.compile(r"\.[0-9a-f]{64}\.(?:tar|idx)\.([0-9]+)\.partial")
_POLL_SECONDS = 0.05  # while other downloads take all the room


@dataclass(frozen=True)
class CacheItem:
    """A file identified by its content. `max_bytes` is its size or an upper bound of it."""

    sha256: str
    suffix: str
    max_bytes: int


class ShardCache:
    """Copies in `folder`, at most `max_bytes` in all; the least recently used ones are evicted.

    Locks are flocks, which end with their process: a partial file without one is left over from a dead process.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes

    def open(self, item: CacheItem, fetch: Callable[[Path], None]) -> int:
        """Return a file descriptor of a complete copy; the caller closes it.

        `fetch` writes the file to a path, or raises. It is called if there is no copy and no other process fetches it.
        """
        # A descriptor and not a path: an eviction between opening and reading must not stop a reader.
        try:
            return self._open_copy(item)  # nearly always
        except OSError:
            with self._explain_errors(item):
                return self._open_or_download(item, fetch)

    def remove(self, item: CacheItem) -> None:
        """Remove a copy that turned out to be damaged."""
        self._path(item).unlink(missing_ok=True)

    def _path(self, item: CacheItem) -> Path:
        return self.folder / f"{item.sha256}{item.suffix}"

    def _partial(self, item: CacheItem) -> Path:
        return self.folder / f".{item.sha256}{item.suffix}.{item.max_bytes}.partial"

    def _open_copy(self, item: CacheItem) -> int:
        return os.open(f"{self.folder}/{item.sha256}{item.suffix}", os.O_RDONLY | os.O_CLOEXEC)

    def _open_or_download(self, item: CacheItem, fetch: Callable[[Path], None]) -> int:
        while True:
            if (claim := self._claim(item)) is not None:
                return self._download(item, claim, fetch)
            # Nothing is held while waiting, so processes cannot deadlock over the room.
            self._wait(item)
            with suppress(FileNotFoundError):
                return self._open_copy(item)

    def _claim(self, item: CacheItem) -> int | None:
        """Create and lock the partial file of `item`, with room for it.

        Return None if there is a copy by now, or if other processes hold the file or the room.
        """
        if item.max_bytes > self.max_bytes:
            raise ConfigError(
                f"data.cache.gigabytes: {self.max_bytes / 1e9:g} cannot hold one file of {format_bytes(item.max_bytes)}; raise it to "
                "at least a few shards"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            # It may have been completed while this process waited for the lock.
            if self._path(item).exists():
                return None
            claim = os.open(self._partial(item), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            claimed = False
            try:
                if _try_lock(claim):
                    claimed = self._make_room()
                    if not claimed:
                        self._partial(item).unlink()
            finally:
                if not claimed:
                    os.close(claim)
            return claim if claimed else None

    def _make_room(self) -> bool:
        """Evict the least recently used copies until all fits. Return False if downloads alone do not fit."""
        copies, downloading = [], 0
        for path in self.folder.iterdir():
            if _COPY.fullmatch(path.name):
                with suppress(FileNotFoundError):  # the user may clear the cache at any time
                    found = path.stat()
                    copies.append((found.st_mtime_ns, found.st_size, path))
            elif partial := _PARTIAL.fullmatch(path.name):
                # The bytes in its name, not its size so far: the room must last until it is complete.
                downloading += 0 if _remove_if_dead(path) else int(partial[1])
        if downloading > self.max_bytes:
            return False
        over = sum(size for _, size, _ in copies) + downloading - self.max_bytes
        for _, size, path in sorted(copies):
            if over <= 0:
                break
            path.unlink(missing_ok=True)
            over -= size
        return True

    def _download(self, item: CacheItem, claim: int, fetch: Callable[[Path], None]) -> int:
        partial = self._partial(item)
        try:
            fetch(partial)
            os.fsync(claim)  # the rename must not reach the disk before the bytes do
            with self._locked():
                partial.rename(self._path(item))
                return self._open_copy(item)
        except BaseException:
            # Under the lock: no other process may claim this file between its removal and the end of its flock.
            with self._locked():
                partial.unlink(missing_ok=True)
            raise
        finally:
            os.close(claim)

    def _wait(self, item: CacheItem) -> None:
        """Wait until the process that downloads `item` ends; where there is none, wait a moment for room."""
        try:
            other = os.open(self._partial(item), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            if not self._path(item).exists():  # other downloads hold the room: there is no lock to wait for
                time.sleep(_POLL_SECONDS)
            return
        try:
            fcntl.flock(other, fcntl.LOCK_SH)
        finally:
            os.close(other)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @contextmanager
    def _explain_errors(self, item: CacheItem) -> Iterator[None]:
        try:
            yield
        except CollaganError:
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                free = shutil.disk_usage(self.folder).free
                raise DataError(
                    f"{self.folder}: no space left for a copy of {format_bytes(item.max_bytes)} ({format_bytes(free)} free); make room, "
                    "lower data.cache.gigabytes, or set data.cache.folder to another disk"
                ) from None
            raise ConfigError(
                f"{self.folder}: cannot be used as cache of shards ({error.strerror or error}); set data.cache.folder "
                "to a folder on a local disk"
            ) from None


def _try_lock(file: int) -> bool:
    # Unlike files.try_lock, an error on a file system without locks: there a cache would delete the downloads of others.
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_if_dead(partial: Path) -> bool:
    """Remove a partial file if its process has ended; return whether it is gone."""
    try:
        file = os.open(partial, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        if dead := _try_lock(file):
            partial.unlink(missing_ok=True)
        return dead
    finally:
        os.close(file)
