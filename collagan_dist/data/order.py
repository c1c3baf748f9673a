"""Which sample comes when: pure integer functions of (seed, epoch, position), for any number of ranks.

A run is one endless line of positions; position p shows sample `sample_at(p)` of epoch p // N. A global batch is a
range of positions and every rank takes its share of it, so all ranks have the same number of steps by construction,
world sizes that divide the batch see the same batches, and resuming is a number.

An epoch is a permutation of 0..N-1 computed point by point: a four-round Feistel network on the next even number of
bits (Luby and Rackoff 1988), walked until it lands inside (Black and Rogaway 2002). No table, any position at once.
"""

from __future__ import annotations

import numpy as np

from collagan_dist import counter
from collagan_dist.contract import World
from collagan_dist.errors import ConfigError, DataError

_ROUNDS = 4


def positions(step: int, batch: int, world: World) -> np.ndarray:
    """Positions of this rank in global batch `step`: int64 (batch / world.size,)."""
    share = batch // world.size
    start = step * batch + world.rank * share
    return np.arange(start, start + share, dtype=np.int64)


def sample_at(position: np.ndarray, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(sample number, epoch) at each position; every epoch shows every sample exactly once."""
    epoch, offset = np.divmod(np.asarray(position, np.int64), samples)
    return permute(offset, samples, counter.key64(seed, "order", epoch)), epoch


def permute(offset: np.ndarray, size: int, key: np.ndarray) -> np.ndarray:
    """Image of each offset in 0..size-1 under the permutation that its key chooses."""
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
            mixed = counter.mix64(key + (right + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(number))
        left, right = right, left ^ (mixed & mask)
    return (left << np.uint64(half)) | right


def total_steps(samples: int, batch: int, epochs: int) -> int:
    """Steps that show every sample `epochs` times; batches straddle epochs."""
    return -(-epochs * samples // batch)


def check_batch(samples: int, batch: int, world: World) -> None:
    """Refuse a global batch that the ranks cannot share or the data set cannot fill. The same verdict on all ranks."""
    if batch % world.size:
        below = batch - batch % world.size
        near = [n for n in (below, below + world.size) if n >= 2 * world.size]
        raise ConfigError(
            f"schedule.batch: {batch} samples cannot be shared evenly by {world.size} ranks; set it to {' or '.join(map(str, near))}"
        )
    if batch // world.size < 2:
        raise ConfigError(
            f"schedule.batch: {batch} samples on {world.size} ranks are {batch // world.size} a rank, batch normalization needs 2; "
            f"set schedule.batch to {2 * world.size} or more, or start fewer ranks"
        )
    if samples < batch:
        raise DataError(
            f"the split has {samples} samples, one global batch needs {batch}; set schedule.batch to at most {samples}"
        )


def shares(samples: int, world: World) -> np.ndarray:
    """Samples of this rank when each is to be seen once and in no order, as evaluation does: every size-th."""
    return np.arange(world.rank, samples, world.size, dtype=np.int64)
