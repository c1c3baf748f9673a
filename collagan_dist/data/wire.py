"""The wire format of a shard, for writer and reader: a USTAR file and DALI's index of it.

A sample's files lie one behind another, each after a header of one block, so their places follow from their sizes.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

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


def decode_index(content: bytes, tar_bytes: int) -> list[list[Member]]:
    """The members of every sample of a tar. Raises ValueError when this is no index, or a sample is none of ours."""
    head, *lines = content.decode("ascii").splitlines()
    version, count = head.split()
    if version != INDEX_VERSION or int(count) != len(lines):
        raise ValueError(f"not an index {INDEX_VERSION} of {count} samples")
    rows = []
    for line in lines:
        words = line.split(" ")
        fields = zip(words[::4], words[1::4], words[2::4], words[3::4], strict=True)
        row = [Member(ext, int(offset), int(size), name) for ext, offset, size, name in fields]
        _check(row, tar_bytes)
        rows.append(row)
    return rows


def _check(row: list[Member], tar_bytes: int) -> None:
    """Refuse a sample that lacks a file, or has one that is no picture, no json and no label map, or lies elsewhere."""
    key = row[0].name.split(".", 1)[0]
    if (problem := wrong_members([m.extension for m in row])) is not None:
        raise ValueError(f"sample {key} {problem}")
    end = 0
    for member in row:
        if member.name != f"{key}.{member.extension}" or member.offset < end + BLOCK or member.size < 0:
            raise ValueError(f"sample {key} has files of other names or places")
        end = member.offset + member.size
    if end > tar_bytes:
        raise ValueError(f"sample {key} lies behind the end of the tar")


def wrong_members(extensions: list[str]) -> str | None:
    """What is wrong with the files of a sample, in the order of a shard; None where they are right."""
    if extensions in (["jpg", "json"], ["jpg", "json", "seg.png"]):
        return None
    return f"has files {', '.join(extensions)}; a sample is jpg, json and at most seg.png"


def index_of(path: Path) -> bytes:
    """The index of a tar, from its headers. Raises OSError, or tarfile.TarError for what is no tar.

    Headers after a damaged one are not found: only a hash tells whether this is the whole index.
    """
    rows: dict[str, list[Member]] = {}
    with tarfile.open(path, "r:") as tar:
        for header in tar:
            key, _, extension = header.name.partition(".")
            rows.setdefault(key, []).append(Member(extension, header.offset_data, header.size, header.name))
    return encode_index(rows.values())
