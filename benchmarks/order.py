"""The order of samples: time and memory at 10^9 samples on 10^4 ranks, and how good the shuffle through streams is.

Quality is measured in the worst case, a data set whose shards differ in what they hold (here: a value that is constant
within a shard; packing shuffles, so a real one is far better): how far the mean of a batch strays from that of the data set,
in units of what independent samples would give (1 is ideal, below 1 more even than chance), and the same over 64 batches in a
row; and how many different shards a batch holds. `sequential` reads shard after shard in shuffled order with a shuffle buffer
of 2048 samples, as plain webdataset does.
"""

from __future__ import annotations

import resource
import time

import numpy as np

from benchmarks import save
from collagan_dist.data.loading.order import Order
from collagan_dist.types import World

SHARD, SHARDS, BATCH, RUN = 256, 1600, 256, 64
SAMPLES = SHARD * SHARDS


def main() -> None:
    values = np.random.default_rng(0).permutation(SHARDS).astype(float)  # of every sample of a shard
    quality = {
        f"window of {window}": measure(
            Order(SAMPLES, BATCH, 1, SHARD, window).at(np.arange(SAMPLES))[0] // SHARD, values
        )
        for window in (4, 16, 64, 256, SHARDS)
    }
    quality[f"window of {SHARDS}, all shuffled whole"] = quality.pop(f"window of {SHARDS}")
    quality["sequential, buffer of 2048"] = measure(buffered(), values)
    save(__file__, {"a billion samples": billion(), "quality": quality, "shards read": reading()})


def billion() -> dict[str, float]:
    """One rank's share of a step, many times; and how the process grew."""
    order, world = Order(10**9, 64 * 10**4, 1, 2048, 128), World(rank=9_999, size=10**4)
    order.step(0, world)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, steps = time.process_time(), 300
    for step in range(steps):
        numbers, _ = order.step(step * 1_000_003, world)
    seconds = time.process_time() - began
    assert len(set(numbers.tolist())) == 64
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"microseconds a sample": round(seconds / steps / 64 * 1e6, 2), "megabytes grown": round(grown / 1024, 1)}


def measure(shard: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Of the shard numbers of an epoch's samples in their order."""
    batches = shard[: len(shard) // BATCH * BATCH].reshape(-1, BATCH)
    means = values[batches].mean(axis=1)
    runs = means[: len(means) // RUN * RUN].reshape(-1, RUN).mean(axis=1)
    ideal = values.std() / np.sqrt(BATCH)
    return {
        "stray of a batch": round(float((means - values.mean()).std() / ideal), 2),
        f"stray of {RUN} batches": round(float((runs - values.mean()).std() / (ideal / np.sqrt(RUN))), 2),
        "shards in a batch": float(np.median([len(np.unique(b)) for b in batches[::25]])),
    }


def buffered() -> np.ndarray:
    """Shard numbers as shuffled shards through a shuffle buffer give them."""
    random = np.random.default_rng(1)
    line = np.repeat(random.permutation(SHARDS), SHARD)
    buffer, out = list(line[:2048]), []
    for shard in line[2048:]:
        place = int(random.integers(len(buffer)))
        out.append(buffer[place])
        buffer[place] = shard
    random.shuffle(buffer)
    return np.array([*out, *buffer])


def reading() -> dict[str, dict[str, float]]:
    """For ranks of several world sizes: the most shards read from in one step, and shards opened in an epoch for each one's worth read."""
    order = Order(SAMPLES, BATCH, 1, SHARD, 16)
    result = {}
    for size in (1, 4, 16, 64):
        world = World(rank=size // 2, size=size)
        shards = [set((order.step(step, world)[0] // SHARD).tolist()) for step in range(SAMPLES // BATCH)]
        opened = sum(len(now - before) for before, now in zip([set(), *shards], shards, strict=False))
        result[f"window of 16, {size} ranks"] = {
            "at a time": max(map(len, shards)),
            "opened per shard's worth of samples": round(opened / (SHARDS / size), 2),
        }
    return result


if __name__ == "__main__":
    main()
