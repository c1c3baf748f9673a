"""The index of an adopted tar: where its samples lie, and what the tar itself does not say of them, one JSON line each.

NAME.<split>.samples lists the samples of one tar that belong to one split, so several may lie beside one tar.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from collagan_dist import structured
from collagan_dist.data.shards.sample_check import Meta
from collagan_dist.data.shards.wire_format import BLOCK_BYTES, IndexEntry

MAX_LINE_BYTES = 1 << 14
_FIRST_LINE = '{"collagan_samples": 1, "samples": %d}'
_LINE = json.JSONEncoder(separators=(",", ":"), sort_keys=True)
_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)$")


class _Head(structured.Record):
    collagan_samples: Annotated[int, Field(ge=1, le=1)]
    samples: structured.Count


# Offset in the tar, bytes, and the member's name.
Part = tuple[structured.Count, structured.Count, str]


class SampleLine(Meta):
    """One sample: its key, its files, and the json that packing would have stored beside them."""

    key: Annotated[str, Field(min_length=1)]
    picture: Part
    labels: Part | None = None
    identity: str | None = None


def split_name(name: str) -> tuple[str, str]:
    """Return the key and the lower-case extension of a member as webdataset does; nothing for what it skips."""
    # The key ends at the first dot of the file's name; dots of folders belong to it.
    match = _NAME.match(name)
    return (match[1], match[2].lower()) if match else ("", "")


def encode_samples(lines: Sequence[bytes]) -> bytes:
    """Return the file of these lines."""
    return b"\n".join([(_FIRST_LINE % len(lines)).encode(), *lines, b""])


def encode_line(line: SampleLine) -> bytes:
    return _LINE.encode(line.model_dump(mode="json", exclude_none=True) | {"landmarks": line.landmarks}).encode()


def is_sample_index(start: bytes) -> bool:
    """Return whether a file begins as one of these."""
    return start.startswith(_FIRST_LINE.partition(",")[0].encode())


class SampleIndex:
    """The index of the samples of one split in a tar of `tar_bytes` bytes. Raises ValueError for what is none.

    A line is parsed when its sample is read.
    """

    def __init__(self, content: bytes, tar_bytes: int) -> None:
        self._content, self._tar_bytes = content, tar_bytes
        self._ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n")).tolist()
        first = content[: self._ends[0]] if self._ends else b""
        try:
            head = structured.parse(first[:MAX_LINE_BYTES], _Head, "its index")
        except structured.Malformed as error:
            raise ValueError(str(error)) from None
        if head.samples != len(self) or not content.endswith(b"\n"):
            raise ValueError(f"its index has {len(self)} lines where it says {head.samples}")

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> IndexEntry:
        """Return where a sample lies, with its line in place of its json. Raises ValueError."""
        line = self.line(row)
        parts = {"jpg": line.picture[:2], "seg.png": line.labels[:2]} if line.labels else {"jpg": line.picture[:2]}
        start = min(at for at, _ in parts.values())
        end = max(at + size for at, size in parts.values())
        if start < BLOCK_BYTES or end > self._tar_bytes:
            raise ValueError(f"sample {line.key} does not lie in its tar as its index says")
        relative = {name: (at - start, size) for name, (at, size) in parts.items()}
        return IndexEntry(line.key, start, end - start, relative, self._bytes(row))

    def line(self, row: int) -> SampleLine:
        """Return what the index says of a sample. Raises ValueError."""
        if not 0 <= row < len(self):
            raise IndexError(row)
        content = self._bytes(row)
        if len(content) > MAX_LINE_BYTES:
            raise ValueError(f"line {row + 2} of its index is too long")
        return structured.check(content, SampleLine, f"line {row + 2} of its index")

    def _bytes(self, row: int) -> bytes:
        return self._content[self._ends[row] + 1 : self._ends[row + 1]]
