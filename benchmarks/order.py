"""A billion samples on 1,024 ranks: time and memory of the order, of the manifest and of the rendezvous; how good the shuffle through streams is.

    python -m benchmarks.order [--without-ranks]

The manifest lists 488,282 shards of 2,048 samples. The rendezvous is the real one through the real store, in 128 processes of 8 ranks; its
clients take nearly all of its time on a small machine, so the CPU time of rank 0 is told apart.

Quality is measured in the worst case, a data set whose shards differ in what they hold (here: a value that is constant
within a shard; packing shuffles, so a real one is far better): how far the mean of a batch strays from that of the data set,
in units of what independent samples would give (1 is ideal, below 1 more even than chance), and the same over 64 batches in a
row; and how many different shards a batch holds. `sequential` reads shard after shard in shuffled order with a shuffle buffer
of 2048 samples, as plain webdataset does.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import save
from collagan_dist.data.loading.order import Order
from collagan_dist.data.shards.manifest import Manifest, Shard, write_manifest
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
    met = {} if sys.argv[1:] == ["--without-ranks"] else {"1,024 ranks meet": meeting(1024, 128)}
    save(
        __file__,
        {
            "a billion samples": billion(),
            "its manifest": listing(),
            **met,
            "quality": quality,
            "shards read": reading(),
        },
    )


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


def listing() -> dict[str, float]:
    """Read the manifest of a billion samples, in a process of its own, whose memory is told."""
    shards = -(-(10**9) // 2048)
    digest = hashlib.sha256(b"a shard").hexdigest()
    recipe = {"store": "crop", "store_size": 176, "samples_per_shard": 2048}
    listed = tuple(Shard(f"train-{number:06d}.tar", 24_000_000, digest, digest, 2048) for number in range(shards))
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(Manifest(Path(folder), "made up", recipe, {"train": listed}, 0))
        size = (Path(folder) / "manifest.json").stat().st_size
        done = subprocess.run([sys.executable, "-c", _READ, folder], capture_output=True, text=True, check=True)
    seconds, before, after = map(float, done.stdout.split())
    return {
        "shards": shards, "megabytes": round(size / 1e6, 1), "CPU seconds": round(seconds, 2),
        "megabytes in memory": round((after - before) * resource.getpagesize() / 1e6),
    }  # fmt: skip


_READ = """
import sys, time
from pathlib import Path
from collagan_dist.data.shards.manifest import read_manifest
pages = lambda: int(Path("/proc/self/statm").read_text().split()[1])
before, began = pages(), time.process_time()
manifest = read_manifest(sys.argv[1])
print(time.process_time() - began, before, pages())
"""


def meeting(ranks: int, processes: int) -> dict[str, object]:
    words = [sys.executable, "-m", "tests.distributed.crowd", str(ranks), str(processes)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = json.loads(
        next(line for line in done.stdout.splitlines() if line.startswith("FOUND")).removeprefix("FOUND")
    )
    return {"processes": processes, **found, "load": round(os.getloadavg()[0], 1)}


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
