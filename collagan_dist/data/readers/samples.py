"""The samples of a data set by columns: as objects, a million of them would take a gigabyte and a half."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np

from collagan_dist.types import SPLITS, Sample

# Gives picture and label map of a sample, by its key and its source. It travels with shard jobs, so it is small.
FilesOf = partial[Any]  # of a function to (File, File | PartMasks | None)


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples in the order of their reader. They become `Sample`s while they are iterated over.

    Columns are arrays of one row a sample: `keys`, `sources` and `identities` of str, `splits` of numbers in SPLITS,
    `landmarks` (N, 5, 2). What the data set has not is None.
    """

    files_of: FilesOf
    keys: np.ndarray
    sources: np.ndarray
    splits: np.ndarray
    landmarks: np.ndarray | None = None
    identities: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Sample]:
        points = repeat(None) if self.landmarks is None else (tuple(map(tuple, p.tolist())) for p in self.landmarks)
        people = repeat(None) if self.identities is None else self.identities
        for key, source, split, landmarks, identity in zip(self.keys, self.sources, self.splits, points, people):  # noqa: B905
            path, labels = self.files_of(key, source)
            yield Sample(key, source, path, SPLITS[split], landmarks, labels, identity)

    def annotations(self) -> list[list[Any]]:
        """Return key, source, landmarks and identity of each sample; None for what the data set has not."""
        columns = (self.keys, self.sources, self.landmarks, self.identities)
        return [list(row) for row in zip(*(repeat(None) if c is None else c.tolist() for c in columns))]  # noqa: B905

    def take(self, rows: np.ndarray) -> Samples:
        """Return the samples of these row numbers, or of a mask."""
        return replace(self, **{name: column[rows] for name, column in self._columns().items()})

    def of_splits(self, splits: Sequence[str]) -> Samples:
        wanted = np.isin(self.splits, [SPLITS.index(split) for split in splits])
        return self if wanted.all() else self.take(wanted)

    def digest(self) -> str:
        """Return a hash of all that is known of the samples but where their files are, whatever their order."""
        result, order = hashlib.sha256(), np.argsort(self.keys)
        for name, column in self._columns().items():
            result.update(name.encode())
            result.update(json.dumps(column[order].tolist()).encode() if column.dtype == object else column[order])
        return result.hexdigest()

    def _columns(self) -> dict[str, Any]:
        return {f.name: column for f in fields(self)[1:] if (column := getattr(self, f.name)) is not None}


def join_samples(parts: Sequence[Samples]) -> Samples:
    """Return the samples of several parts of one data set."""
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in parts[0]._columns()
    }
    return replace(parts[0], **columns)
