"""Copies of files from elsewhere: bounded, named by their content, shared by all processes of a node and by all runs.

    FOLDER/<sha256>.tar                     a sound copy; its time is that of its last use
    FOLDER/.<sha256>.tar.<bytes>.partial    a copy under way, of at most so many bytes; whoever fetches it holds its flock
    FOLDER/.lock                            held for the moment in which files are claimed, named or removed

A lock ends with the process that holds it, so nothing goes stale: a partial file that nobody holds is a dead one.
Whoever needs a file and cannot have it holds nothing while waiting, and a reader gets an open file, not a name: an
eviction can make it fetch again, but never stops it.
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

_COPY = re.compile(r"[0-9a-f]{64}\.(tar|idx)")
_PARTIAL = re.compile(r"\.[0-9a-f]{64}\.(?:tar|idx)\.([0-9]+)\.partial")
_PAUSE = 0.05  # seconds between looks for room that downloads of others hold


@dataclass(frozen=True)
class CacheItem:
    """A file known by its content. `most` is what it takes in bytes, or an upper bound of that."""

    sha256: str
    suffix: str
    most: int


class ShardCache:
    """At most `limit` bytes of copies in `folder`."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit

    def open(self, item: CacheItem, fetch: Callable[[Path], None]) -> int:
        """A descriptor to read a sound copy from, which the caller closes.

        `fetch` writes the file to a path, or raises; it is called when there is no copy and nobody else is fetching.
        """
        try:
            return self._opened(item)  # nearly always
        except OSError:
            with self._errors(item):
                return self._fetched(item, fetch)

    def drop(self, item: CacheItem) -> None:
        """Remove a copy that turned out to be damaged."""
        self._path(item).unlink(missing_ok=True)

    def _path(self, item: CacheItem) -> Path:
        return self.folder / f"{item.sha256}{item.suffix}"

    def _partial(self, item: CacheItem) -> Path:
        return self.folder / f".{item.sha256}{item.suffix}.{item.most}.partial"

    def _opened(self, item: CacheItem) -> int:
        return os.open(f"{self.folder}/{item.sha256}{item.suffix}", os.O_RDONLY | os.O_CLOEXEC)

    def _fetched(self, item: CacheItem, fetch: Callable[[Path], None]) -> int:
        while True:
            if (claim := self._claim(item)) is not None:
                return self._fill(item, claim, fetch)
            self._wait(item)
            with suppress(FileNotFoundError):
                return self._opened(item)

    def _claim(self, item: CacheItem) -> int | None:
        """The locked partial file of `item`, and room for it. None: it is there, or others hold the file or the room."""
        if item.most > self.limit:
            raise ConfigError(
                f"data.cache.gigabytes: {self.limit / 1e9:g} cannot hold one file of {item.most / 1e9:g} GB; raise it to "
                "at least a few shards"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if self._path(item).exists():
                return None
            claim = os.open(self._partial(item), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            kept = False
            try:
                if _try_lock(claim):
                    kept = self._make_room()
                    if not kept:
                        self._partial(item).unlink()
            finally:
                if not kept:
                    os.close(claim)
            return claim if kept else None

    def _make_room(self) -> bool:
        """Remove what was not used for longest until copies and downloads fit. False while downloads alone do not."""
        copies, downloads = [], 0
        for path in self.folder.iterdir():
            if _COPY.fullmatch(path.name):
                with suppress(FileNotFoundError):
                    found = path.stat()
                    copies.append((found.st_mtime_ns, found.st_size, path))
            elif partial := _PARTIAL.fullmatch(path.name):
                downloads += 0 if _removed_if_dead(path) else int(partial[1])
        if downloads > self.limit:
            return False
        over = sum(size for _, size, _ in copies) + downloads - self.limit
        for _, size, path in sorted(copies):
            if over <= 0:
                break
            path.unlink(missing_ok=True)
            over -= size
        return True

    def _fill(self, item: CacheItem, claim: int, fetch: Callable[[Path], None]) -> int:
        partial = self._partial(item)
        try:
            fetch(partial)
            os.fsync(claim)
            with self._locked():
                partial.rename(self._path(item))
                return self._opened(item)
        except BaseException:
            # Under the lock: nobody may claim this file between its removal and the end of its flock.
            with self._locked():
                partial.unlink(missing_ok=True)
            raise
        finally:
            os.close(claim)

    def _wait(self, item: CacheItem) -> None:
        """Until whoever fetches `item` has ended, or a moment where the room is what lacks."""
        try:
            other = os.open(self._partial(item), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            if not self._path(item).exists():
                time.sleep(_PAUSE)
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
    def _errors(self, item: CacheItem) -> Iterator[None]:
        try:
            yield
        except CollaganError:
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                free = shutil.disk_usage(self.folder).free
                raise DataError(
                    f"{self.folder}: no space left for a copy of {item.most / 1e6:.1f} MB ({free / 1e6:.1f} MB free); make room, "
                    "lower data.cache.gigabytes, or set data.cache.folder to another disk"
                ) from None
            raise ConfigError(
                f"{self.folder}: cannot be used as cache of shards ({error.strerror or error}); set data.cache.folder "
                "to a folder on a local disk"
            ) from None


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _removed_if_dead(partial: Path) -> bool:
    """Remove a partial file whose process is gone; whether it was one."""
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
