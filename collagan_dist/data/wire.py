"""The wire format of a shard, for writer and reader: a USTAR file and DALI's index of it.

A sample's files lie one behind another, each after a header of one block, so their places follow from their sizes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO

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


class ShardFile:
    """Appends samples to an open tar and remembers their index. webdataset's writer makes the tar."""

    def __init__(self, file: BinaryIO) -> None:
        import webdataset

        # Fixed time and names: the same samples give the same bytes, in plain USTAR.
        self._tar = webdataset.TarWriter(file, mtime=0, user="", group="", encoder=False)
        self._at = 0
        self.rows: list[list[Member]] = []

    def add(self, key: str, members: dict[str, bytes]) -> None:
        """One sample: its files by extension."""
        row = []
        for extension, content in sorted(members.items()):  # the writer's order
            row.append(Member(extension, self._at + BLOCK, len(content), f"{key}.{extension}"))
            self._at += BLOCK + len(content) + -len(content) % BLOCK
        self._tar.write({"__key__": key, **members})
        self.rows.append(row)

    def finish(self) -> None:
        self._tar.close()

    def index(self) -> bytes:
        return encode_index(self.rows)


def encode_index(rows: Iterable[list[Member]]) -> bytes:
    """DALI's index (wds2idx v1.2): a line a sample, `extension offset size name` a member."""
    lines = [" ".join(f"{m.extension} {m.offset} {m.size} {m.name}" for m in row) for row in rows]
    return "\n".join([f"{INDEX_VERSION} {len(lines)}", *lines, ""]).encode()


class Index:
    """An index as it was read: a line is taken apart when its sample is asked for. Raises ValueError when it is none."""

    def __init__(self, content: bytes) -> None:
        version, _, count = content[: content.find(b"\n")].decode("ascii").partition(" ")
        self._content = content
        self._ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n"))
        if version != INDEX_VERSION or not count.isdigit() or int(count) != len(self) or not content.endswith(b"\n"):
            raise ValueError(f"not an index {INDEX_VERSION} of {count} samples")

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> list[Member]:
        words = self._content[self._ends[row] + 1 : self._ends[row + 1]].decode("ascii").split(" ")
        fields = zip(words[::4], words[1::4], words[2::4], words[3::4], strict=True)
        return [Member(ext, int(offset), int(size), name) for ext, offset, size, name in fields]
