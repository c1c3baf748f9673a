"""Bytes of any sample of a split, by number: index and `pread`, no tar library and no memory map.

(A tar cut short under a memory map kills the process; a short `pread` is an error that can be named.)
"""

from __future__ import annotations

import errno
import json
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from collagan_dist import rng
from collagan_dist.data.shards import shard_files, wire_format
from collagan_dist.data.shards.manifest import Manifest, Shard
from collagan_dist.data.shards.remote import RemoteFolder
from collagan_dist.errors import DataError
from collagan_dist.types import LANDMARKS

_parse: Any = vars(json.JSONDecoder())["scan_once"]  # without the search for blanks around it
_OPEN_SHARDS = 320  # more than the largest data.window


class DamagedSample(DataError):
    """One sample is not what packing wrote any more; the shards around it are in order."""


class StoredSample(NamedTuple):
    """One sample as its shard holds it. `uid` is a number made from the key: what its randomness hangs on."""

    key: str
    uid: int
    jpg: np.ndarray
    labels: np.ndarray | None
    landmarks: list[list[float]] | None
    width: int
    height: int
    square: list[float] | None = None  # centre and side of the face, where there are no landmarks to make it of


class SplitReader:
    """The samples 0..len-1 of one split."""

    def __init__(self, manifest: Manifest, name: str) -> None:
        self.name = name
        self.manifest = manifest
        self._shards = shards = manifest.shards(name)
        self._starts = list(accumulate((s.samples for s in self._shards), initial=0))
        # Per instance and without a cycle, so that file handles close with it.
        self._open = lru_cache(_OPEN_SHARDS)(lambda number: _OpenShard(manifest, shards[number]))

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, number: int) -> StoredSample:
        """Sample `number`. Raises DamagedSample naming shard and sample, DataError for a shard that cannot be had."""
        shard, row = self._find(number)
        return self._open(shard).read(row)

    def key(self, number: int) -> str:
        shard, row = self._find(number)
        return self._open(shard).key(row)

    def place(self, number: int) -> str:
        """Where a sample lies, in words."""
        return f"{self.manifest.folder / self._shards[self._find(number)[0]].name}: sample {self.key(number)}"

    @property
    def is_remote(self) -> bool:
        return isinstance(self.manifest.folder, RemoteFolder)

    def shards_of(self, numbers: np.ndarray) -> set[int]:
        """The shards, by number, in which samples lie."""
        return set((np.searchsorted(self._starts, numbers, side="right") - 1).tolist())

    def prefetch(self, shard: int) -> None:
        """Have the bytes of a shard brought near, since they will be read: into the cache from a URL, into memory from a folder."""
        self._open(shard).tar.prefetch()

    def _find(self, number: int) -> tuple[int, int]:
        shard = bisect_right(self._starts, number) - 1
        return shard, number - self._starts[shard]


class _OpenShard:
    def __init__(self, manifest: Manifest, shard: Shard) -> None:
        self.folder, self.path = manifest.folder, manifest.folder / shard.name
        self.index = shard_files.index(self.folder, shard)
        self.tar = shard_files.open_tar(self.folder, shard)

    def key(self, row: int) -> str:
        return self._row(row).key

    def read(self, row: int) -> StoredSample:
        key, start, size, parts = self._row(row)
        try:
            content = self.tar.pread(size, start)
        except OSError as error:
            kind = DamagedSample if error.errno == errno.EIO else DataError
            raise kind(f"{self.path}: sample {key} cannot be read ({error.strerror})") from None
        if len(content) < size:
            raise DamagedSample(f"{self.path}: sample {key} is cut short; run `collagan verify {self.folder} --deep`")
        offset, count = parts["json"]
        try:
            meta = _checked(_parse(content[offset : offset + count].decode(), 0)[0])
        except (ValueError, KeyError, TypeError, StopIteration) as error:
            raise DamagedSample(f"{self.path}: the json of sample {key} is damaged ({error!r})") from None
        return StoredSample(
            key, rng.name_id(key), _view(content, parts["jpg"]),
            _view(content, parts["seg.png"]) if "seg.png" in parts else None,
            meta["landmarks"], meta["width"], meta["height"], meta.get("square"),
        )  # fmt: skip

    def _row(self, row: int) -> wire_format.IndexEntry:
        try:
            return self.index[row]
        except ValueError as error:
            raise DamagedSample(f"{self.path}: {error}; pack this data set again") from None


def _checked(meta: dict[str, Any]) -> dict[str, Any]:
    """The json of a sample, if it says what geometry needs. Raises ValueError, KeyError or TypeError."""
    points, square = meta["landmarks"], meta.get("square")
    total, sizes = 0.0, [meta["width"], meta["height"]]
    if points is not None:
        total = sum([x + y for x, y in points])
        if len(points) != len(LANDMARKS):
            raise ValueError(f"{points} are not {len(LANDMARKS)} points")
    if square is not None:
        x, y, side = square
        total, sizes = x + y, [*sizes, side]
    if min(sizes) <= 0 or not isfinite(total + sum(sizes)):
        raise ValueError("sizes or coordinates are none")
    return meta


def _view(content: bytes, part: tuple[int, int]) -> np.ndarray:
    return np.frombuffer(content, np.uint8, count=part[1], offset=part[0])
