"""Open the tar and the index of a shard, in a local folder or as cached copies of remote files.

An index is used only if its hash is the manifest's. A wrong one in a local folder is rebuilt from its tar.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import tarfile
import time
from contextlib import suppress
from pathlib import Path

from collagan_dist import files, shell
from collagan_dist.data.shards import wire_format
from collagan_dist.data.shards.cache import CacheItem
from collagan_dist.data.shards.manifest import Shard
from collagan_dist.data.shards.remote import RemoteFolder
from collagan_dist.data.shards.sample_index import SampleIndex
from collagan_dist.errors import DataError

logger = logging.getLogger(__name__)

_TOUCH_SECONDS = 1.0  # between updates of a copy's time of last use


def open_tar(folder: Path | RemoteFolder, shard: Shard) -> LocalTar | CachedTar:
    """Open the tar of a shard for reading at offsets. Raises DataError."""
    if isinstance(folder, RemoteFolder):
        return CachedTar(folder, shard)
    try:
        return LocalTar(folder / shard.name)
    except OSError as error:
        raise DataError(f"{folder / shard.name}: cannot be opened ({error.strerror})") from None


def read_index(folder: Path | RemoteFolder, shard: Shard, repair: bool = True) -> wire_format.Index | SampleIndex:
    """Read the index of a shard, rebuilt if need be and `repair` allows it. Raises DataError."""
    content = _cached_index(folder, shard) if isinstance(folder, RemoteFolder) else _local_index(folder, shard, repair)
    try:
        found = SampleIndex(content, shard.bytes) if shard.index else wire_format.Index(content, shard.bytes)
        if len(found) != shard.samples:
            raise ValueError(f"its index lists {len(found)} samples, the manifest says {shard.samples}")
    except ValueError as error:
        raise DataError(f"{folder / shard.name}: {error}; {shard.mend}") from None
    return found


class LocalTar:
    """A tar in a local folder, open as long as this object lives."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def pread(self, count: int, offset: int) -> bytes:
        """Return bytes of the file, fewer than `count` where it ends."""
        return os.pread(self._file, count, offset)

    def prefetch(self) -> None:
        """Ask the kernel to read the file ahead, which file systems without readahead ignore."""
        os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_WILLNEED)


class CachedTar:
    """The cached copy of a remote tar, downloaded when it is missing."""

    # Opened for every read: a copy that the cache evicts frees its space at once, which an open file would keep.

    def __init__(self, remote: RemoteFolder, shard: Shard) -> None:
        self._remote, self._shard, self._copy = remote, shard, tar_content(shard)
        self._touched = 0.0

    def pread(self, count: int, offset: int) -> bytes:
        """Return bytes of the file as LocalTar does; a copy that was cut short is downloaded again."""
        content = self._read(count, offset)
        # Only if the shard has these bytes: a wrong index must not download it again and again.
        if len(content) < count <= self._shard.bytes - offset:
            self._remote.cache.remove(self._copy)
            content = self._read(count, offset)
        return content

    def _read(self, count: int, offset: int) -> bytes:
        file = self._remote.open(self._shard.name, self._copy)
        try:
            if (now := time.monotonic()) > self._touched + _TOUCH_SECONDS:
                self._touched = now
                with suppress(OSError):  # another user's copy, or a read-only cache
                    os.utime(file)
            return os.pread(file, count, offset)
        finally:
            os.close(file)

    def prefetch(self) -> None:
        """Download the file unless there is a copy."""
        os.close(self._remote.open(self._shard.name, self._copy))


def tar_content(shard: Shard) -> CacheItem:
    return CacheItem(shard.sha256, ".tar", shard.bytes)


def index_content(shard: Shard) -> CacheItem:
    # Manifests have no size of a packed index. Its bound: a line names three files, by a key of at most 92 bytes each.
    size = 64 + 512 * shard.samples if shard.index_bytes is None else shard.index_bytes
    return CacheItem(shard.idx_sha256, ".idx", size)


def _cached_index(remote: RemoteFolder, shard: Shard) -> bytes:
    copy = index_content(shard)
    for _ in range(2):  # the cache checks what it downloads, not what became of it on this disk
        with os.fdopen(remote.open(shard.index_name, copy), "rb") as file:
            content = file.read()
        if _is_index_of(content, shard):
            return content
        remote.cache.remove(copy)  # damaged on this disk
    raise DataError(f"{remote.cache.folder}: copies of {remote / shard.index_name} do not last; check this disk")


def _local_index(folder: Path, shard: Shard, repair: bool) -> bytes:
    """Return the index of a local shard; a missing or wrong one is rebuilt from the tar, written and reported.

    Raises DataError if the tar is not the manifest's, if the index cannot be written, if `repair` forbids it, or for an adopted tar.
    """
    path = folder / shard.index_name
    content = _read_or_empty(path)
    if not _is_index_of(content, shard):
        problem = "is damaged" if content else "is missing"
        if shard.index:  # it also holds what was decided over all tars
            raise DataError(f"{path}: {problem}; {shard.mend}")
        if not repair:
            raise DataError(f"{path}: {problem}; `{shell.collagan('verify', folder)}` rebuilds it from its tar")
        content = _rebuild_index(folder / shard.name, shard)
        _write_index(path, content, shard)
    return content


def _read_or_empty(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _is_index_of(content: bytes, shard: Shard) -> bool:
    return hashlib.sha256(content).hexdigest() == shard.idx_sha256


def _rebuild_index(tar: Path, shard: Shard) -> bytes:
    try:
        content = wire_format.index_from_tar(tar)
    except (OSError, tarfile.TarError, ValueError) as error:
        raise DataError(f"{tar}: its index is damaged and cannot be rebuilt ({error})") from None
    if not _is_index_of(content, shard):
        raise DataError(f"{tar}: is not the tar of the manifest, nor is its index (rebuilt, it has another hash)")
    return content


def _write_index(path: Path, content: bytes, shard: Shard) -> None:
    # All ranks may come here at once. They write the same bytes; the lock lets only one of them report it.
    lock = os.open(path.with_name(shard.name), os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a network file system without locks: each rank reports
            fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_index_of(_read_or_empty(path), shard):
            return
        files.write_bytes(path, content)
    except OSError as error:
        raise DataError(
            f"{path}: is missing or not the index of {shard.name}, and cannot be rebuilt here ({error.strerror}); "
            f"run `{shell.collagan('verify', path.parent)}` where this folder can be written"
        ) from None
    finally:
        os.close(lock)
    logger.info(f"rebuilt {path} from its tar")
