"""Curves of a run, thinned out while its log is read: however long the log, a bounded number of points is kept.

Rows come from the newest to the oldest, so that it is known of each whether a later start has given it up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    import numpy as np

Row = dict[str, Any]

# More points than pixels across make a page larger and no sharper.
MAX_POINTS = 300
# Curves of one log. A run of three tasks has about forty.
MAX_CURVES = 128
# Names of further ones that are counted.
MAX_LEFT_OUT = 1000
# Sums, squares and axes of larger numbers end in infinities; no result of a training comes near.
MAX_NUMBER = 1e100
# Up to this many rows nothing is lost before the last thinning.
_MAX_BUCKETS = 4096
# Of rows that wait to become a matrix. 4096 usual ones have half of it.
_MAX_WAITING_BYTES = 1 << 23


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether this is a number that can be drawn: no boolean, finite, within ±MAX_NUMBER."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


def spread_evenly(count: int, wanted: int) -> list[int]:
    """Return at most `wanted` indices below `count`, evenly spread, with the first and the last."""
    if count <= wanted:
        return list(range(count))
    return [round(index * (count - 1) / (wanted - 1)) for index in range(wanted)]


@dataclass(frozen=True)
class Curve:
    """One number of the train lines by step: at most MAX_POINTS points, each a mean of neighbours, and the exact last one."""

    steps: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    last_step: int = 0
    last: float = math.nan


@dataclass(frozen=True)
class TrainCurves:
    """The train lines of a run: `count` of them up to `last_step`, as curves by key.

    `samples` are values of single lines by key, in their order: all of a short log, evenly spread ones of a long log.
    """

    count: int
    last_step: int
    curves: dict[str, Curve]
    samples: dict[str, tuple[float, ...]]


class CurveCollector:
    """Takes rows from the newest to the oldest and keeps at most _MAX_BUCKETS buckets of neighbours.

    When they are full, two neighbours become one. `undrawable` counts numbers that cannot be drawn, `left_out` holds keys
    beyond MAX_CURVES.
    """

    def __init__(self, ignored: Sequence[str]) -> None:
        self.count = self.last_step = self.undrawable = 0
        self.left_out: set[str] = set()
        self._ignored = frozenset(ignored)
        self._order: dict[str, None] = {}
        self._columns: dict[str, int] = {"step": 0}
        self._names: tuple[str, ...] = ()
        self._last: dict[str, tuple[int, float]] = {}
        # Waiting rows by the names of their keys: those of one kind become a matrix at once.
        self._waiting: dict[tuple[str, ...], tuple[list[int], list[list[Any]]]] = {}
        self._waiting_count = self._waiting_bytes = 0
        self._stride = 1
        self._buckets: _Buckets | None = None

    def add(self, row: Row, size: int = 0) -> None:
        """Take a row, of `size` bytes in its file: rows that wait take a memory that is bounded."""
        names = tuple(row)
        if names != self._names:
            self._names = names
            # Keys stay in the order in which the log names them first, though it is read backwards.
            if len(self._order) <= 4 * MAX_CURVES:
                self._order = dict.fromkeys([*names, *self._order])
        numbers, rows = self._waiting.setdefault(names, ([], []))
        if not self.count:
            self.last_step = row["step"]
        numbers.append(self.count)
        rows.append(list(row.values()))
        self.count += 1
        self._waiting_count += 1
        self._waiting_bytes += size
        if self._waiting_count >= _MAX_BUCKETS or self._waiting_bytes > _MAX_WAITING_BYTES:
            self._flush()

    def finish(self) -> TrainCurves:
        self._flush()
        found = self._buckets.thinned(self.count, self._stride) if self._buckets else None
        order = [key for key in self._order if key in self._last and key in self._columns]
        curves, samples = {}, {}
        if found is None:
            return TrainCurves(self.count, self.last_step, {}, {})
        for key in order:
            steps, values, picked = found.column(self._columns[key])
            curves[key] = Curve(steps, values, *self._last[key])
            samples[key] = picked
        return TrainCurves(self.count, self.last_step, curves, samples)

    def _flush(self) -> None:
        import numpy as np

        if not self._waiting_count:
            return
        begin = self.count - self._waiting_count
        wide = [self._parse(names, rows) for names, (_, rows) in self._waiting.items()]
        block = np.full((self._waiting_count, len(self._columns)), np.nan)
        for (numbers, _), (columns, matrix) in zip(self._waiting.values(), wide, strict=True):
            block[np.ix_(np.asarray(numbers) - begin, np.asarray(columns, dtype=int))] = matrix
        self._remember_last(block, begin)
        self._waiting, self._waiting_count, self._waiting_bytes = {}, 0, 0
        if self._buckets is None:
            self._buckets = _Buckets(len(self._columns))
        self._buckets.widen(len(self._columns))
        while (self.count - 1) // self._stride >= _MAX_BUCKETS:
            self._buckets.merge_pairs()
            self._stride *= 2
        self._buckets.add(block, begin, self._stride)

    def _parse(self, names: tuple[str, ...], rows: list[list[Any]]) -> tuple[list[int], np.ndarray]:
        """Return the columns of these keys and their values, NaN for what is no number that can be drawn."""
        import numpy as np

        wanted = [
            index for index, name in enumerate(names) if name not in self._ignored and self._column(name) is not None
        ]
        values = [[row[index] for index in wanted] for row in rows]
        try:
            if not all({float, int}.issuperset(map(type, row)) for row in values):
                raise ValueError("not all are numbers")
            matrix = np.asarray(values, dtype=float)
        # OverflowError: an integer of hundreds of digits.
        except (ValueError, OverflowError):
            matrix = np.asarray([[_to_float(value) for value in row] for row in values])
            self.undrawable += sum(_is_undrawable(value) for row in values for value in row)
        else:
            self.undrawable += int((~(np.abs(matrix) <= MAX_NUMBER)).sum())
        matrix[~(np.abs(matrix) <= MAX_NUMBER)] = np.nan
        return [self._columns[names[index]] for index in wanted], matrix

    def _column(self, name: str) -> int | None:
        if name not in self._columns:
            if len(self._columns) > MAX_CURVES:
                if len(self.left_out) < MAX_LEFT_OUT:
                    self.left_out.add(name)
                return None
            self._columns[name] = len(self._columns)
        return self._columns[name]

    def _remember_last(self, block: np.ndarray, begin: int) -> None:
        import numpy as np

        for name, column in self._columns.items():
            if name != "step" and name not in self._last:
                known = np.flatnonzero(~np.isnan(block[:, column]))
                if len(known):
                    # Rows come newest first.
                    self._last[name] = int(block[known[0], 0]), float(block[known[0], column])


def _to_float(value: object) -> float:
    return float(value) if is_number(value) else math.nan


def _is_undrawable(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not is_number(value)


class _Buckets:
    """Sums, counts, extremes and one single row of each bucket of neighbouring rows; column 0 is the step."""

    def __init__(self, width: int) -> None:
        import numpy as np

        # How two neighbours become one, and what an empty bucket has.
        self._arrays: dict[str, tuple[Callable[..., np.ndarray], float]] = {
            "sums": (np.add, 0.0), "counts": (np.add, 0.0), "low": (np.minimum, np.inf), "high": (np.maximum, -np.inf),
            "picked": (lambda first, _: first, np.nan),
        }  # fmt: skip
        self.sums, self.counts, self.low, self.high, self.picked = (
            np.full((_MAX_BUCKETS, width), filler) for _, filler in self._arrays.values()
        )

    def widen(self, width: int) -> None:
        import numpy as np

        more = width - self.sums.shape[1]
        if more <= 0:
            return
        for name, (_, filler) in self._arrays.items():
            setattr(self, name, np.hstack([getattr(self, name), np.full((_MAX_BUCKETS, more), filler)]))

    def merge_pairs(self) -> None:
        import numpy as np

        half = _MAX_BUCKETS // 2
        for name, (merge, filler) in self._arrays.items():
            old = getattr(self, name)
            merged = np.full_like(old, filler)
            merged[:half] = merge(old[0::2], old[1::2])
            setattr(self, name, merged)

    def add(self, block: np.ndarray, begin: int, stride: int) -> None:
        """Add rows of which the first has number `begin`; `stride` rows make a bucket."""
        import numpy as np

        numbers = begin + np.arange(len(block))
        first = np.flatnonzero(np.diff(numbers // stride, prepend=-1))
        into = numbers[first] // stride
        known = ~np.isnan(block)
        self.sums[into] += np.add.reduceat(np.where(known, block, 0), first)
        self.counts[into] += np.add.reduceat(known.astype(float), first)
        self.low[into] = np.minimum(self.low[into], np.minimum.reduceat(np.where(known, block, np.inf), first))
        self.high[into] = np.maximum(self.high[into], np.maximum.reduceat(np.where(known, block, -np.inf), first))
        single = first[numbers[first] % stride == 0]
        self.picked[numbers[single] // stride] = block[single]

    def thinned(self, count: int, stride: int) -> _Points:
        """Return MAX_POINTS points from the oldest to the newest, and all single rows."""
        import numpy as np

        used = -(-count // stride)
        oldest_first = slice(used - 1, None, -1)
        first = np.asarray([part[0] for part in np.array_split(np.arange(used), min(used, MAX_POINTS))])
        sums, counts = (np.add.reduceat(one[oldest_first], first) for one in (self.sums, self.counts))
        low = np.minimum.reduceat(self.low[oldest_first], first)
        high = np.maximum.reduceat(self.high[oldest_first], first)
        with np.errstate(invalid="ignore"):
            # Clipped, as the mean of equal values may be off by a rounding, which an axis would show.
            means = np.clip(sums / counts, low, high)
        return _Points(means, counts, self.picked[oldest_first])


@dataclass(frozen=True)
class _Points:
    means: np.ndarray
    counts: np.ndarray
    picked: np.ndarray

    def column(self, index: int) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        import numpy as np

        known, single = self.counts[:, index] > 0, self.picked[:, index]
        steps, values = self.means[known, 0].tolist(), self.means[known, index].tolist()
        return tuple(steps), tuple(values), tuple(single[~np.isnan(single)].tolist())


class EvenlySpread:
    """Items added one by one, of which at most twice `limit` are kept at any time: the first, and evenly spread others."""

    def __init__(self, limit: int) -> None:
        self.count = 0
        self._limit, self._stride, self._kept = limit, 1, list[Any]()

    def add(self, item: Any) -> None:
        if self.count % self._stride == 0:
            self._kept.append(item)
            if len(self._kept) > 2 * self._limit:
                self._kept = self._kept[::2]
                self._stride *= 2
        self.count += 1

    def items(self) -> list[Any]:
        """Return at most `limit` of them, in the order of adding."""
        return [self._kept[index] for index in spread_evenly(len(self._kept), self._limit)]
