"""The order of samples: pure integer functions of (seed, epoch, position), for any number of ranks.

A run is an endless sequence of positions; position p is offset p % N of epoch p // N. A global batch is a range of
positions, and every rank takes its share of it. So all ranks have the same number of steps, world sizes that divide the
batch see the same batches, and resuming needs only the step.

Up to `window` shards are fully shuffled. A larger split is read through streams, so that storage sees long sequential
reads. The shards of an epoch in shuffled order form a circle, rotated at random and cut into streams. There are as many
as divide the batch, at most `window`. Every stream gives its next samples to every batch, and the samples of a shard
are shuffled. So a run reads from about `window` shards at a time, and a batch has samples from all over the split.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from collagan_dist import rng
from collagan_dist.config.tree import Schedule
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.types import World

_ROUNDS = 4
_CHUNK = 4096  # positions that are computed at once: numpy's overhead per call is shared by many steps

BatchIds = tuple[np.ndarray, np.ndarray]  # sample numbers, epochs


@dataclass(frozen=True)
class Order:
    """The order of a split of `samples` samples, `shard` in a full shard; `batch` is the global batch size."""

    samples: int
    batch: int
    seed: int
    shard: int
    window: int

    @property
    def fully_shuffled(self) -> bool:
        """Whether epochs are shuffled across all shards."""
        return self.samples <= self.window * self.shard

    @cached_property
    def streams(self) -> int:
        """How many places of the epoch are read from at a time."""
        return max(n for n in range(1, min(self.window, self.batch) + 1) if self.batch % n == 0)

    def at(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (sample number, epoch) at each position; every epoch has every sample exactly once."""
        epoch, offset = np.divmod(np.asarray(position, np.int64), self.samples)
        if self.fully_shuffled:
            return permute(offset, self.samples, rng.key64(self.seed, "order", epoch)), epoch
        return self._in_shards(self._interleave(offset, epoch), epoch), epoch

    def step(self, number: int, world: World) -> BatchIds:
        """Return this rank's share of global batch `number`."""
        return self.at(rank_positions(number, self.batch, world))

    def steps(self, start: int, stop: int, world: World) -> Iterator[BatchIds]:
        """Yield `step` of start to stop - 1, computed many at a time."""
        many = max(1, _CHUNK * world.size // self.batch)
        for first in range(start, stop, many):
            rows = [rank_positions(number, self.batch, world) for number in range(first, min(stop, first + many))]
            numbers, epochs = self.at(np.concatenate(rows))
            yield from zip(numbers.reshape(len(rows), -1), epochs.reshape(len(rows), -1), strict=True)

    def _interleave(self, offset: np.ndarray, epoch: np.ndarray) -> np.ndarray:
        """Return the place in the circle of shards: the next one of the stream that the slot in the batch belongs to."""
        width = self.batch // self.streams  # samples that a stream gives to a batch
        row, slot = np.divmod(offset, self.batch)
        stream, within = np.divmod(slot, width)
        rows, rest = divmod(self.samples, self.batch)
        start = stream * rows * width + np.minimum(rest, stream * width)
        # So that the cuts between streams fall elsewhere in every epoch.
        epoch_rotation = (rng.key64(self.seed, "turn", epoch) % np.uint64(self.samples)).astype(np.int64)
        return (start + row * width + within + epoch_rotation) % self.samples

    def _in_shards(self, place: np.ndarray, epoch: np.ndarray) -> np.ndarray:
        """Return the sample number at a place: shards shuffled, a short last one at the end, samples shuffled in each."""
        full, short = divmod(self.samples, self.shard)
        shard, within = np.divmod(place, self.shard)
        key = rng.key64(self.seed, "samples", epoch, shard)
        number = np.empty_like(place)
        # The short shard has its own permutation, and is never exchanged with a full one: places would not fit.
        last = shard == full
        number[last] = permute(within[last], short, key[last]) + full * self.shard
        rest = ~last
        chosen = permute(shard[rest], full, rng.key64(self.seed, "shards", epoch[rest]))
        number[rest] = chosen * self.shard + permute(within[rest], self.shard, key[rest])
        return number


def rank_positions(step: int, batch: int, world: World) -> np.ndarray:
    """Return the positions of this rank in global batch `step`: int64 (batch / world.size,)."""
    share = batch // world.size
    start = step * batch + world.rank * share
    return np.arange(start, start + share, dtype=np.int64)


def permute(offset: np.ndarray, size: int, key: np.ndarray) -> np.ndarray:
    """Return the image of each offset in 0..size-1 under the permutation that its key chooses."""
    # Computed point by point, without a table: a four-round Feistel network (Luby and Rackoff 1988) on the next even
    # number of bits, applied until the value is inside the range (cycle walking; Black and Rogaway 2002).
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    value = np.asarray(offset).astype(np.uint64)
    key = np.broadcast_to(key, value.shape)
    value = _feistel(value, key, half)
    while (outside := value >= size).any():
        value[outside] = _feistel(value[outside], key[outside], half)
    return value.astype(np.int64)


def _feistel(value: np.ndarray, key: np.ndarray, half: int) -> np.ndarray:
    mask = np.uint64((1 << half) - 1)
    left, right = value >> np.uint64(half), value & mask
    for number in range(_ROUNDS):
        with np.errstate(over="ignore"):
            mixed = rng.splitmix64(key + (right + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(number))
        left, right = right, left ^ (mixed & mask)
    return (left << np.uint64(half)) | right


def planned_steps(schedule: Schedule, samples: int) -> int:
    """Return schedule.steps, or else the steps that show every sample `epochs` times; batches may cross from one epoch into the next."""
    return schedule.steps or -(-schedule.epochs * samples // schedule.batch)


def check_batch(samples: int, batch: int, world: World, parts: int = 1) -> None:
    """Raise ConfigError or DataError for a global batch that the ranks or the split do not allow; the same on all ranks.

    `parts` is runtime.accumulate, the micro-batches of a rank.
    """
    shares = world.size * parts
    who = f"{world.size} ranks" if parts == 1 else f"{world.size} ranks in {parts} parts each (runtime.accumulate)"
    fewer = "start fewer ranks" if parts == 1 else "start fewer ranks or lower runtime.accumulate"
    least, most = 2 * shares, samples - samples % shares
    none = ""
    if shares > 1 and least > most:
        none = f"no batch suits these ranks and this split: {who} need at least {least} samples, the split has {samples}; {fewer}"
    if batch % shares:
        below = batch - batch % shares
        near = dict.fromkeys(min(max(n, least), most) for n in (below, below + shares))
        mend = none or f"set it to {' or '.join(map(str, near))}"
        raise ConfigError(f"schedule.batch: {batch} samples cannot be shared evenly by {who}; {mend}")
    if batch < least:
        mend = none or f"set schedule.batch to {least} or more, or {fewer}"
        raise ConfigError(
            f"schedule.batch: {batch} samples on {who} are 1 at a time, batch normalization needs 2; {mend}"
        )
    # With less than a batch, one step would show a sample twice.
    if samples < batch:
        mend = none or f"set schedule.batch to at most {most}"
        raise DataError(f"the split has {samples} samples, one global batch needs {batch}; {mend}")


def rank_samples(samples: int, world: World) -> np.ndarray:
    """Return every world.size-th sample: evaluation needs each sample once, in any order."""
    return np.arange(world.rank, samples, world.size, dtype=np.int64)
