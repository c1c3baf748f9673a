"""The format of a shard, for writing and reading: a USTAR tar of samples and DALI's index of it."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

BLOCK_BYTES = 512  # of a tar: headers take one block, contents are padded to whole ones
INDEX_VERSION = "v1.2"
_MOST_BETWEEN = 1 << 20  # bytes of a sample that are read in vain


# Sorted and without blanks: the same sample always has the same bytes.
_META = json.JSONEncoder(separators=(",", ":"), sort_keys=True)


def encode_meta(meta: dict[str, Any]) -> bytes:
    return _META.encode(meta).encode()


@dataclass(frozen=True)
class Member:
    """One file of a sample and the position of its bytes in the tar."""

    extension: str
    offset: int
    size: int
    name: str


# A USTAR header without name, size and checksum. The checksum's own eight bytes count as blanks in its sum.
_HEADER = bytearray(tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT))
_HEADER[100:108] = b"0000444\0"
_HEADER[148:156] = b" " * 8
_CHECKSUM = sum(_HEADER) - sum(_HEADER[124:135])


class ShardWriter:
    """Writes samples to an open file as a tar, and collects their index.

    The bytes are those of webdataset's TarWriter with time, user and group 0.
    """

    # Own code, because TarWriter takes four times as long for a sample (benchmarks/packing.py).

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._offset = 0
        self._hash = hashlib.sha256()  # while the bytes are in the processor's cache, not from the file
        self.rows: list[list[Member]] = []

    def add(self, key: str, members: dict[str, bytes]) -> None:
        """Append one sample, given its files by extension."""
        row, pieces = [], []
        for extension, content in sorted(members.items()):  # TarWriter's order
            name = f"{key}.{extension}"
            row.append(Member(extension, self._offset + BLOCK_BYTES, len(content), name))
            padding = -len(content) % BLOCK_BYTES
            pieces += [_header(name, len(content)), content, bytes(padding)]
            self._offset += BLOCK_BYTES + len(content) + padding
        self._write(b"".join(pieces))
        self.rows.append(row)

    def finish(self) -> None:
        """Write the end of the tar: two empty blocks, then padding to a whole record."""
        self._write(bytes(2 * BLOCK_BYTES + -(self._offset + 2 * BLOCK_BYTES) % tarfile.RECORDSIZE))

    def _write(self, content: bytes) -> None:
        self._hash.update(content)
        self._file.write(content)

    def sha256(self) -> str:
        """Return the hash of all bytes written."""
        return self._hash.hexdigest()

    def index(self) -> bytes:
        return encode_index(self.rows)


def _header(name: str, size: int) -> bytes:
    head, letters, digits = _HEADER.copy(), name.encode("ascii"), b"%011o" % size
    head[: len(letters)], head[124:135] = letters, digits
    # Not the sum of all 512 bytes again.
    head[148:155] = b"%06o\0" % (_CHECKSUM + sum(letters) + sum(digits))
    return bytes(head)


def encode_index(rows: Iterable[list[Member]]) -> bytes:
    """Return DALI's index (wds2idx v1.2): one line per sample, `extension offset size name` for each of its files."""
    return join_index([index_line(row) for row in rows])


def index_line(row: list[Member]) -> bytes:
    return " ".join(f"{m.extension} {m.offset} {m.size} {m.name}" for m in row).encode()


def join_index(lines: Sequence[bytes]) -> bytes:
    return b"\n".join([f"{INDEX_VERSION} {len(lines)}".encode(), *lines, b""])


# What tarfile raises besides its own errors: for sizes beyond all numbers, and for headers of headers without end.
FORGED_TAR_ERRORS = (ValueError, OverflowError, RecursionError, MemoryError)


class IndexEntry(NamedTuple):
    """The position of a sample in its tar: `parts` are (offset from `start`, bytes) by extension.

    `meta` is its json where that is not in the tar.
    """

    key: str
    start: int
    size: int
    parts: dict[str, tuple[int, int]]
    meta: bytes | None = None

    def read(self, pread: Callable[[int, int], bytes]) -> dict[str, memoryview]:
        """Return the bytes of all parts, fewer where the tar ends; `pread` is given count and offset."""
        spans = self.parts.items()
        # One read is faster, unless files of other programs lie between, such as arrays of 200 MB.
        if self.size - sum(size for _, size in self.parts.values()) > _MOST_BETWEEN:
            return {name: memoryview(pread(size, self.start + at)) for name, (at, size) in spans}
        content = memoryview(pread(self.size, self.start))
        return {name: content[at : at + size] for name, (at, size) in spans}


# Lines of an index whose samples have exactly the files that packing writes. Possessive quantifiers (`++`) keep the
# time linear for a line that does not match.
_FILE = rb" \d++ \d++ "
_LINES = re.compile(
    rb"(?:jpg" + _FILE + rb"([^ .\n]++)\.jpg json" + _FILE + rb"\1\.json(?: seg\.png" + _FILE + rb"\1\.seg\.png)?+\n)*+"
)


class Index:
    """The index of a tar of `tar_bytes` bytes. Raises ValueError for what is no index of such samples.

    A line is parsed when its sample is read.
    """

    # Parsing all lines at once would cost every rank time and memory for samples that it never reads.

    def __init__(self, content: bytes, tar_bytes: int) -> None:
        version, _, count = content[: content.find(b"\n")].decode("ascii").partition(" ")
        self._content, self._tar_bytes = content, tar_bytes
        self._ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n")).tolist()
        if version != INDEX_VERSION or not count.isdigit() or int(count) != len(self) or not content.endswith(b"\n"):
            raise ValueError(f"not an index {INDEX_VERSION} of {count} samples")
        if not _LINES.fullmatch(content, self._ends[0] + 1):
            raise ValueError(self._describe_problem())

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> IndexEntry:
        if not 0 <= row < len(self):
            raise IndexError(row)
        words = self._content[self._ends[row] + 1 : self._ends[row + 1]].split(b" ")  # __init__ checked their pattern
        start, jpg, json_at, json_size = int(words[1]), int(words[2]), int(words[5]), int(words[6])
        parts = {"jpg": (0, jpg), "json": (json_at - start, json_size)}
        in_order, end = start >= BLOCK_BYTES and start + jpg <= json_at, json_at + json_size
        if len(words) > 8:
            at, size = int(words[9]), int(words[10])
            parts["seg.png"] = (at - start, size)
            in_order, end = in_order and end <= at, at + size
        key = words[3][:-4].decode("ascii")
        if not in_order or end > self._tar_bytes:
            raise ValueError(f"sample {key} does not lie in its tar as its index says")
        return IndexEntry(key, start, end - start, parts)

    def _describe_problem(self) -> str:
        """Return what is wrong with the first line that does not match the pattern."""
        for row in range(len(self)):
            words = self._content[self._ends[row] + 1 : self._ends[row + 1]].decode("ascii", "replace").split(" ")
            key = words[3].split(".", 1)[0] if len(words) > 3 else ""
            if len(words) % 4 == 0 and (problem := member_problem(words[::4])) is not None:
                return f"sample {key} {problem}"
            if not _LINES.fullmatch(self._content, self._ends[row] + 1, self._ends[row + 1] + 1):
                return f"line {row + 2} of its index is malformed"
        raise AssertionError("all lines match the pattern")


def member_problem(extensions: list[str]) -> str | None:
    """Return what is wrong with the extensions of a sample's files, in a shard's order; None for valid ones."""
    if extensions in (["jpg", "json"], ["jpg", "json", "seg.png"]):
        return None
    return f"has files {', '.join(extensions)}; a sample is jpg, json and at most seg.png"


def index_from_tar(path: Path) -> bytes:
    """Return the index of a tar, from its headers. Raises OSError, or tarfile.TarError for what is no tar."""
    # tarfile stops at a damaged header without an error: only the manifest's hash shows that this index is complete.
    rows: dict[str, list[Member]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for header in tar:
                key, _, extension = header.name.partition(".")
                rows.setdefault(key, []).append(Member(extension, header.offset_data, header.size, header.name))
    except FORGED_TAR_ERRORS as error:
        raise tarfile.ReadError(f"{type(error).__name__} in a header") from None
    return encode_index(rows.values())
