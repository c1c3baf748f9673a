"""Read a tar once, from start to end: the files of its samples with their places, its size and its sha256.

What webdataset would read otherwise than people mean is named: links, sparse files, files of a sample that lie apart.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, BinaryIO

from collagan_dist.data.readers.archives import MAX_MEMBER_BYTES
from collagan_dist.data.shards.sample_index import split_name
from collagan_dist.data.shards.wire_format import FORGED_TAR_ERRORS
from collagan_dist.errors import DataError

_READ_BYTES = 1 << 20
_MAX_EMPTY = 100  # reads at the end: tarfile would read there as often as a forged size says
_META = re.compile(r"__[^/]*__($|/)")  # of webdataset: no samples
# First bytes of what people compress tars to, and what undoes that.
_COMPRESSED = (
    (b"\x1f\x8b", "gunzip"), (b"BZh", "bunzip2"), (b"\xfd7zXZ", "unxz"), (b"\x28\xb5\x2f\xfd", "unzstd"),
    (b"PK\x03\x04", "unzip, then tar"),
)  # fmt: skip


@dataclass(frozen=True)
class TarMember:
    """One file of a sample. `content` is empty for kinds that are not `wanted`; `problem` says why it cannot be used."""

    name: str
    key: str
    extension: str
    offset: int
    size: int
    content: bytes = field(default=b"", repr=False)
    problem: str | None = None


class HashedStream:
    """A file that is read once from its start, and what passed by: bytes, sha256, and the end of the last one that is not 0."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._hash = stream, hashlib.sha256()
        self.count = self.last = self._empty = 0
        self.head = self._next(tarfile.BLOCKSIZE)
        self._ahead = self.head

    def read(self, count: int) -> bytes:
        taken, self._ahead = self._ahead[:count], self._ahead[count:]
        return taken + self._next(count - len(taken)) if len(taken) < count else taken

    def drain(self) -> None:
        while self._next(_READ_BYTES):
            pass

    def sha256(self) -> str:
        return self._hash.hexdigest()

    def _next(self, count: int) -> bytes:
        content = self._stream.read(count)
        self._empty += not content
        if self._empty > _MAX_EMPTY:
            raise EOFError("a file is said to be longer than the tar")
        self._hash.update(content)
        if used := len(content.rstrip(b"\0")):
            self.last = self.count + used
        self.count += len(content)
        return content


class _Header(tarfile.TarInfo):
    """Keeps why a tar ends: tarfile stops at a damaged header as at its end."""

    @classmethod
    def fromtarfile(cls, tar: Any) -> Any:
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            tar.ended_by = error
            raise


def read_samples(stream: HashedStream, name: str, wanted: frozenset[str]) -> Iterator[tuple[str, list[TarMember]]]:
    """Yield key and files of each sample in the tar's order. Raises DataError for what is no whole, plain tar."""
    for magic, program in _COMPRESSED:
        if stream.head.startswith(magic):
            raise DataError(
                f"{name}: is compressed, so no sample of it can be read alone; undo that ({program}) and adopt the tar"
            )
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=_READ_BYTES, tarinfo=_Header) as tar:  # type: ignore[call-overload]
            yield from groupby_key(_members(tar, wanted))
            ended_by, end = getattr(tar, "ended_by", None), tar.offset
    except (tarfile.TarError, EOFError, *FORGED_TAR_ERRORS) as error:
        raise DataError(f"{name}: is damaged, cut short, or no tar ({error}); copy it again") from None
    if not isinstance(ended_by, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
        raise DataError(f"{name}: is damaged or cut short at byte {end} ({ended_by or 'no end'}); copy it again")
    stream.drain()
    if stream.last > end:
        raise DataError(
            f"{name}: holds other bytes after the end of the tar, at byte {end}, which readers of tars do not see; join tars by "
            "`tar --concatenate`, not by `cat`"
        )


def groupby_key(members: Iterator[TarMember]) -> Iterator[tuple[str, list[TarMember]]]:
    """Yield what follows each other with one key, as webdataset makes samples."""
    for key, group in groupby(members, lambda member: member.key):
        yield key, list(group)


def _members(tar: tarfile.TarFile, wanted: frozenset[str]) -> Iterator[TarMember]:
    for header in tar:
        tar.members = []  # type: ignore[attr-defined]  # else it keeps them all
        key, extension = split_name(header.name)
        if not key or _META.match(header.name) or header.isdir():
            continue
        problem = _problem(header)
        content = b""
        if extension in wanted and problem is None:
            file = tar.extractfile(header)
            content = file.read() if file is not None else b""
        yield TarMember(header.name, key, extension, header.offset_data, header.size, content, problem)


def _problem(header: tarfile.TarInfo) -> str | None:
    if header.issparse():
        return f"{header.name} is stored as a sparse file (tar --sparse)"
    if header.issym() or header.islnk():
        return f"{header.name} is a link (tar --dereference stores what it leads to)"
    if not header.isreg():
        return f"{header.name} is a device or the like"
    if header.size > MAX_MEMBER_BYTES:
        return f"{header.name} has {header.size} bytes, more than {MAX_MEMBER_BYTES}"
    return None
