"""Bytes of any sample of a split, by number: index and `pread`, no tar library and no memory map.

(A tar cut short under a memory map kills the process; a short `pread` is an error that can be named.)
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from collagan_dist import counter
from collagan_dist.data import wire
from collagan_dist.data.manifest import Manifest, Shard
from collagan_dist.errors import DataError

_OPEN_SHARDS = 256


@dataclass(frozen=True)
class Stored:
    """One sample as its shard holds it. `uid` is a number made from the key: what its randomness hangs on."""

    key: str
    uid: int
    jpg: np.ndarray
    labels: np.ndarray | None
    landmarks: list[list[float]] | None
    width: int
    height: int


class Split:
    """The samples 0..len-1 of one split."""

    def __init__(self, manifest: Manifest, name: str) -> None:
        self.name = name
        self.manifest = manifest
        self._shards = manifest.shards(name)
        self._starts = np.cumsum([0, *(s.samples for s in self._shards)])
        # Per instance, so that file handles close with it.
        self._open = lru_cache(_OPEN_SHARDS)(lambda number: _OpenShard(manifest, self._shards[number]))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, number: int) -> Stored:
        """Sample `number`. Raises DataError naming shard and sample when its bytes are not there."""
        shard, row = self._find(number)
        return self._open(shard).read(row)

    def key(self, number: int) -> str:
        shard, row = self._find(number)
        return self._open(shard).key(row)

    def place(self, number: int) -> str:
        """Where a sample lies, in words."""
        return f"{self.manifest.folder / self._shards[self._find(number)[0]].name}: sample {self.key(number)}"

    def _find(self, number: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._starts, number, side="right")) - 1
        return shard, number - int(self._starts[shard])


class _OpenShard:
    def __init__(self, manifest: Manifest, shard: Shard) -> None:
        self.path = manifest.folder / shard.name
        try:
            self.rows = wire.Index((manifest.folder / shard.index_name).read_bytes())
            self.file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.path}: cannot be opened with its index ({error}); run `collagan verify {manifest.folder}`"
            ) from None

    def __del__(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)

    def key(self, row: int) -> str:
        return self.rows[row][0].name.split(".", 1)[0]

    def read(self, row: int) -> Stored:
        members = self.rows[row]
        start, end = members[0].offset, max(m.offset + m.size for m in members)
        content = os.pread(self.file, end - start, start)
        if len(content) < end - start:
            raise DataError(
                f"{self.path}: sample {self.key(row)} is cut short; run `collagan verify {self.path.parent} --deep`"
            )
        parts = {m.extension: (m.offset - start, m.size) for m in members}
        offset, size = parts["json"]
        key = self.key(row)
        try:
            meta: dict[str, Any] = json.loads(content[offset : offset + size])
        except ValueError as error:
            raise DataError(f"{self.path}: the json of sample {key} is damaged ({error})") from None
        return Stored(
            key, counter.name_id(key), _view(content, parts["jpg"]),
            _view(content, parts["seg.png"]) if "seg.png" in parts else None,
            meta["landmarks"], meta["width"], meta["height"],
        )  # fmt: skip


def _view(content: bytes, part: tuple[int, int]) -> np.ndarray:
    return np.frombuffer(content, np.uint8, count=part[1], offset=part[0])
