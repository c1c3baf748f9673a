"""The wire format of a shard, for writer and reader: a USTAR file and DALI's index of it.

Headers come from the standard library's TarInfo with every field fixed, so the same samples give the same bytes.
benchmarks/tar_writer.py has the measurement that chose it over webdataset's TarWriter.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO

BLOCK = 512
INDEX_VERSION = "v1.2"
EXTENSIONS = ("jpg", "json", "seg.png")


def encode_meta(meta: dict[str, Any]) -> bytes:
    return json.dumps(meta, separators=(",", ":"), sort_keys=True).encode()


@dataclass(frozen=True)
class Member:
    """One file of a sample: where its bytes lie in the tar."""

    extension: str
    offset: int
    size: int
    name: str


class ShardFile:
    """Appends samples to an open tar and remembers their index."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = 0
        self.rows: list[list[Member]] = []

    def add(self, key: str, members: dict[str, bytes]) -> None:
        """One sample: its members in the order of EXTENSIONS."""
        row = []
        for extension in EXTENSIONS:
            if (content := members.get(extension)) is not None:
                name = f"{key}.{extension}"
                row.append(Member(extension, self._at + BLOCK, len(content), name))
                self._write(_header(name, len(content)), content, bytes(-len(content) % BLOCK))
        self.rows.append(row)

    def finish(self) -> None:
        """Two empty blocks end a tar; the file is filled up to a whole record of 20."""
        end = self._at + 2 * BLOCK
        self._write(bytes(2 * BLOCK + -end % tarfile.RECORDSIZE))

    def index(self) -> bytes:
        return encode_index(self.rows)

    def _write(self, *parts: bytes) -> None:
        for part in parts:
            self._file.write(part)
            self._at += len(part)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o444, 0
    return info.tobuf(tarfile.USTAR_FORMAT)


def encode_index(rows: Iterable[list[Member]]) -> bytes:
    """DALI's index (wds2idx v1.2): a line a sample, `extension offset size name` a member."""
    lines = [" ".join(f"{m.extension} {m.offset} {m.size} {m.name}" for m in row) for row in rows]
    return "\n".join([f"{INDEX_VERSION} {len(lines)}", *lines, ""]).encode()


def decode_index(content: bytes) -> list[list[Member]]:
    """The members of every sample of an index. Raises ValueError when it is not one."""
    head, *lines = content.decode("ascii").splitlines()
    version, count = head.split()
    if version != INDEX_VERSION or int(count) != len(lines):
        raise ValueError(f"not an index {INDEX_VERSION} of {count} samples")
    rows = []
    for line in lines:
        words = line.split(" ")
        fields = zip(words[::4], words[1::4], words[2::4], words[3::4], strict=True)
        rows.append([Member(ext, int(offset), int(size), name) for ext, offset, size, name in fields])
    return rows
