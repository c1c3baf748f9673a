"""The bytes of one shard and its index, of a local folder or of a cached copy; damaged ones are mended or refused.

An index is used only when its hash is the manifest's. In a local folder one that is not is rebuilt from its tar.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import tarfile
import time
from contextlib import suppress
from pathlib import Path

from collagan_dist import files
from collagan_dist.data.shards import wire_format
from collagan_dist.data.shards.cache import CacheItem
from collagan_dist.data.shards.manifest import Shard
from collagan_dist.data.shards.remote import RemoteFolder
from collagan_dist.errors import DataError

_TOUCH = 1.0  # seconds after which the use of a copy is noted again


def open_tar(place: Path | RemoteFolder, shard: Shard) -> LocalTar | CachedTar:
    """The tar of a shard, to read at offsets. Raises DataError."""
    if isinstance(place, RemoteFolder):
        return CachedTar(place, shard)
    try:
        return LocalTar(place / shard.name)
    except OSError as error:
        raise DataError(f"{place / shard.name}: cannot be opened ({error.strerror})") from None


def index(place: Path | RemoteFolder, shard: Shard) -> wire_format.Index:
    """The sound index of a shard. Raises DataError."""
    content = _cached_index(place, shard) if isinstance(place, RemoteFolder) else local_index(place, shard)
    try:
        found = wire_format.Index(content, shard.bytes)
        if len(found) != shard.samples:
            raise ValueError(f"its index lists {len(found)} samples, the manifest says {shard.samples}")
    except ValueError as error:
        raise DataError(f"{place / shard.name}: {error}; pack this data set again") from None
    return found


class LocalTar:
    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def pread(self, count: int, offset: int) -> bytes:
        """Fewer bytes than asked for where the file ends."""
        return os.pread(self._file, count, offset)

    def prefetch(self) -> None:
        """The kernel reads the whole file ahead, where its file system can."""
        os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_WILLNEED)


class CachedTar:
    """Opened for every read: a copy that is removed gives its space back at once, and is fetched again."""

    def __init__(self, remote: RemoteFolder, shard: Shard) -> None:
        self._remote, self._shard, self._copy = remote, shard, tar_content(shard)
        self._noted = 0.0

    def pread(self, count: int, offset: int) -> bytes:
        """As LocalTar's; a copy that was cut short is fetched again first."""
        content = self._read(count, offset)
        if len(content) < count <= self._shard.bytes - offset:
            self._remote.cache.drop(self._copy)
            content = self._read(count, offset)
        return content

    def _read(self, count: int, offset: int) -> bytes:
        file = self._remote.open(self._shard.name, self._copy)
        try:
            if (now := time.monotonic()) > self._noted + _TOUCH:
                self._noted = now
                with suppress(OSError):  # a copy of somebody else's, a cache that is read-only
                    os.utime(file)
            return os.pread(file, count, offset)
        finally:
            os.close(file)

    def prefetch(self) -> None:
        """Fetch the file, unless it is there."""
        os.close(self._remote.open(self._shard.name, self._copy))


def tar_content(shard: Shard) -> CacheItem:
    return CacheItem(shard.sha256, ".tar", shard.bytes)


def index_content(shard: Shard) -> CacheItem:
    """Manifests do not hold the size of an index; a line is three files of a key of at most 92 bytes."""
    return CacheItem(shard.idx_sha256, ".idx", 64 + 512 * shard.samples)


def _cached_index(remote: RemoteFolder, shard: Shard) -> bytes:
    copy = index_content(shard)
    for _ in range(2):
        with os.fdopen(remote.open(shard.index_name, copy), "rb") as file:
            content = file.read()
        if _is_sound(content, shard):
            return content
        remote.cache.drop(copy)  # damaged where it lay
    raise DataError(f"{remote.cache.folder}: copies of {remote / shard.index_name} do not last; check this disk")


def local_index(folder: Path, shard: Shard) -> bytes:
    """The index of a local shard; one that is missing or not its own is rebuilt from the tar, written and reported.

    Raises DataError when it is the tar that is not the manifest's, or where nothing can be written.
    """
    path = folder / shard.index_name
    content = _on_disk(path)
    if not _is_sound(content, shard):
        content = _rebuilt(folder / shard.name, shard)
        _mend(path, content, shard)
    return content


def _on_disk(path: Path) -> bytes:
    """Empty, which is no index, where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _is_sound(content: bytes, shard: Shard) -> bool:
    return hashlib.sha256(content).hexdigest() == shard.idx_sha256


def _rebuilt(tar: Path, shard: Shard) -> bytes:
    try:
        content = wire_format.index_from_tar(tar)
    except (OSError, tarfile.TarError, ValueError) as error:
        raise DataError(f"{tar}: its index is unsound and cannot be rebuilt ({error})") from None
    if not _is_sound(content, shard):
        raise DataError(f"{tar}: is not the tar of the manifest, nor is its index (rebuilt, it has another hash)")
    return content


def _mend(path: Path, content: bytes, shard: Shard) -> None:
    """Write an index. All ranks may come here at once: they write the same bytes, and one of them says so."""
    lock = os.open(path.with_name(shard.name), os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # not every network file system locks; then each says so
            fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_sound(_on_disk(path), shard):
            return
        files.write_bytes(path, content)
    except OSError as error:
        raise DataError(
            f"{path}: is missing or not the index of {shard.name}, and cannot be rebuilt here ({error.strerror}); "
            f"run `collagan verify {path.parent}` where this folder can be written"
        ) from None
    finally:
        os.close(lock)
    print(f"rebuilt {path} from its tar", file=sys.stderr, flush=True)
