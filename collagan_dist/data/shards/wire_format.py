"""The wire format of a shard, for writer and reader: a USTAR file and DALI's index of it.

A sample's files lie one behind another, each after a header of one block, so their places follow from their sizes.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

BLOCK = 512
INDEX_VERSION = "v1.2"


def encode_meta(meta: dict[str, Any]) -> bytes:
    return json.dumps(meta, separators=(",", ":"), sort_keys=True).encode()


@dataclass(frozen=True)
class Member:
    """One file of a sample: where its bytes lie in the tar."""

    extension: str
    offset: int
    size: int
    name: str


# Header of a USTAR file without name, size and checksum (its eight bytes count as blanks in their own sum).
_HEADER = bytearray(tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT))
_HEADER[100:108] = b"0000444\0"
_HEADER[148:156] = b" " * 8


class ShardWriter:
    """Appends samples to an open file as a tar, and remembers their index.

    The bytes are those of webdataset's TarWriter with time, user and group 0, at a quarter of its cost (benchmarks/packing.py).
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = 0
        self.rows: list[list[Member]] = []

    def add(self, key: str, members: dict[str, bytes]) -> None:
        """One sample: its files by extension."""
        row, pieces = [], []
        for extension, content in sorted(members.items()):  # TarWriter's order
            name = f"{key}.{extension}"
            row.append(Member(extension, self._at + BLOCK, len(content), name))
            padding = -len(content) % BLOCK
            pieces += [_header(name, len(content)), content, bytes(padding)]
            self._at += BLOCK + len(content) + padding
        self._file.write(b"".join(pieces))
        self.rows.append(row)

    def finish(self) -> None:
        """The two empty blocks at the end of a tar, and its filling up to whole records."""
        self._file.write(bytes(2 * BLOCK + -(self._at + 2 * BLOCK) % tarfile.RECORDSIZE))

    def index(self) -> bytes:
        return encode_index(self.rows)


def _header(name: str, size: int) -> bytes:
    head = _HEADER.copy()
    head[: len(name)] = name.encode("ascii")
    head[124:135] = b"%011o" % size
    head[148:155] = b"%06o\0" % sum(head)
    return bytes(head)


def encode_index(rows: Iterable[list[Member]]) -> bytes:
    """DALI's index (wds2idx v1.2): a line a sample, `extension offset size name` a member."""
    lines = [" ".join(f"{m.extension} {m.offset} {m.size} {m.name}" for m in row) for row in rows]
    return "\n".join([f"{INDEX_VERSION} {len(lines)}", *lines, ""]).encode()


class IndexEntry(NamedTuple):
    """Where a sample lies in its tar: `parts` are extension: (offset from start, bytes)."""

    key: str
    start: int
    size: int
    parts: dict[str, tuple[int, int]]


# The lines of samples that have the files of ours.
_FILE = rb" \d++ \d++ "
_LINES = re.compile(
    rb"(?:jpg" + _FILE + rb"([^ .\n]++)\.jpg json" + _FILE + rb"\1\.json(?: seg\.png" + _FILE + rb"\1\.seg\.png)?+\n)*+"
)


class Index:
    """The index of a tar of `tar_bytes`, as it was read: a line is taken apart when its sample is asked for.

    Raises ValueError when it is none, or for a sample that is none of ours.
    """

    def __init__(self, content: bytes, tar_bytes: int) -> None:
        version, _, count = content[: content.find(b"\n")].decode("ascii").partition(" ")
        self._content, self._tar_bytes = content, tar_bytes
        self._ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n")).tolist()
        if version != INDEX_VERSION or not count.isdigit() or int(count) != len(self) or not content.endswith(b"\n"):
            raise ValueError(f"not an index {INDEX_VERSION} of {count} samples")
        if not _LINES.fullmatch(content, self._ends[0] + 1):
            raise ValueError(self._whats_wrong())

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> IndexEntry:
        if not 0 <= row < len(self):
            raise IndexError(row)
        words = self._content[self._ends[row] + 1 : self._ends[row + 1]].split(b" ")  # their pattern was checked
        start, jpg, json_at, json_size = int(words[1]), int(words[2]), int(words[5]), int(words[6])
        parts = {"jpg": (0, jpg), "json": (json_at - start, json_size)}
        sound, end = start >= BLOCK and start + jpg <= json_at, json_at + json_size
        if len(words) > 8:
            at, size = int(words[9]), int(words[10])
            parts["seg.png"] = (at - start, size)
            sound, end = sound and end <= at, at + size
        key = words[3][:-4].decode("ascii")
        if not sound or end > self._tar_bytes:
            raise ValueError(f"sample {key} does not lie in its tar as its index says")
        return IndexEntry(key, start, end - start, parts)

    def _whats_wrong(self) -> str:
        """The first line that is not of the pattern, in words."""
        for row in range(len(self)):
            words = self._content[self._ends[row] + 1 : self._ends[row + 1]].decode("ascii", "replace").split(" ")
            key = words[3].split(".", 1)[0] if len(words) > 3 else ""
            if len(words) % 4 == 0 and (problem := member_problem(words[::4])) is not None:
                return f"sample {key} {problem}"
            if not _LINES.fullmatch(self._content, self._ends[row] + 1, self._ends[row + 1] + 1):
                return f"line {row + 2} of its index is malformed"
        raise AssertionError("the lines are of the pattern")


def member_problem(extensions: list[str]) -> str | None:
    """What is wrong with the files of a sample, in the order of a shard; None where they are right."""
    if extensions in (["jpg", "json"], ["jpg", "json", "seg.png"]):
        return None
    return f"has files {', '.join(extensions)}; a sample is jpg, json and at most seg.png"


def index_from_tar(path: Path) -> bytes:
    """The index of a tar, from its headers. Raises OSError, or tarfile.TarError for what is no tar.

    Headers after a damaged one are not found: only a hash tells whether this is the whole index.
    """
    rows: dict[str, list[Member]] = {}
    with tarfile.open(path, "r:") as tar:
        for header in tar:
            key, _, extension = header.name.partition(".")
            rows.setdefault(key, []).append(Member(extension, header.offset_data, header.size, header.name))
    return encode_index(rows.values())
