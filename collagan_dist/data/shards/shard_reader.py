"""Read any sample of a split by its number, with the index and mostly one `pread`."""

from __future__ import annotations

import errno
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from collagan_dist import rng, shell
from collagan_dist.data.face_square import Square
from collagan_dist.data.shards import shard_files, wire_format
from collagan_dist.data.shards.manifest import Manifest, Shard
from collagan_dist.data.shards.remote import RemoteFolder
from collagan_dist.data.shards.sample_check import WrongSample, parse_meta
from collagan_dist.errors import DataError

_OPEN_SHARDS = 320  # more than the largest data.window, so that all shards in use stay open


class DamagedSample(DataError):
    """One sample of a shard is damaged; its other samples can be read."""


class StoredSample(NamedTuple):
    """One sample as its shard stores it. `uid` is a hash of the key that seeds the sample's randomness.

    `square` is the face square, by the landmarks where there are some.
    """

    key: str
    uid: int
    jpg: np.ndarray
    labels: np.ndarray | None
    landmarks: list[list[float]] | None
    width: int
    height: int
    square: Square


class SplitReader:
    """The samples of one split by number, 0 to len - 1."""

    def __init__(self, manifest: Manifest, name: str) -> None:
        self.name = name
        self.manifest = manifest
        self._shards = shards = manifest.shards(name)
        self._starts = list(accumulate((s.samples for s in self._shards), initial=0))
        # Per instance, and without a reference to it, so that files are closed when the last reference to it goes.
        self._open = lru_cache(_OPEN_SHARDS)(lambda number: _OpenShard(manifest, shards[number]))

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, number: int) -> StoredSample:
        """Return a sample. Raises DamagedSample naming shard and sample, DataError for a shard that cannot be read."""
        shard, row = self._find(number)
        return self._open(shard).read(row)

    def key(self, number: int) -> str:
        shard, row = self._find(number)
        return self._open(shard).key(row)

    def describe(self, number: int) -> str:
        """Return shard and key of a sample for messages."""
        return f"{self.manifest.tars / self._shards[self._find(number)[0]].name}: sample {self.key(number)}"

    @property
    def is_remote(self) -> bool:
        return isinstance(self.manifest.tars, RemoteFolder)

    def shards_of(self, numbers: np.ndarray) -> set[int]:
        """Return the numbers of the shards that hold these samples."""
        return set((np.searchsorted(self._starts, numbers, side="right") - 1).tolist())

    def prefetch(self, shard: int) -> None:
        """Bring a shard's bytes near before they are read: from a URL into the cache, from a folder into memory."""
        self._open(shard).tar.prefetch()

    def _find(self, number: int) -> tuple[int, int]:
        shard = bisect_right(self._starts, number) - 1
        return shard, number - self._starts[shard]


class _OpenShard:
    """The index and the open tar of one shard."""

    def __init__(self, manifest: Manifest, shard: Shard) -> None:
        self.folder, self.path, self._mend = manifest.folder, manifest.tars / shard.name, shard.mend
        self.index = shard_files.read_index(self.folder, shard)
        self.tar = shard_files.open_tar(manifest.tars, shard)

    def key(self, row: int) -> str:
        return self._row(row).key

    def read(self, row: int) -> StoredSample:
        entry = self._row(row)
        key, line = entry.key, entry.meta
        # `pread` and not a memory map: a tar that is cut short under a map kills the process, a short read has a name.
        try:
            parts = entry.read(self.tar.pread)
        except OSError as error:
            # EIO is a bad block under one sample; other errors concern the file system.
            kind = DamagedSample if error.errno == errno.EIO else DataError
            raise kind(f"{self.path}: sample {key} cannot be read ({error.strerror})") from None
        if any(len(parts[name]) < size for name, (_, size) in entry.parts.items()):
            raise DamagedSample(
                f"{self.path}: sample {key} is cut short; run `{shell.collagan('verify', self.folder, '--deep')}`"
            )
        if line is None:
            line = bytes(parts["json"])
        try:
            meta, square = parse_meta(line)
        except WrongSample as error:
            raise DamagedSample(f"{self.path}: the json of sample {key} cannot be used: {error}") from None
        return StoredSample(
            key, rng.name_id(key), np.frombuffer(parts["jpg"], np.uint8),
            np.frombuffer(parts["seg.png"], np.uint8) if "seg.png" in parts else None,
            meta.landmarks, meta.width, meta.height, square,
        )  # fmt: skip

    def _row(self, row: int) -> wire_format.IndexEntry:
        try:
            return self.index[row]
        except ValueError as error:
            raise DamagedSample(f"{self.path}: {error}; {self._mend}") from None
