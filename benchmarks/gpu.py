"""Reading for training on a GPU: images per second of decoding alone and of whole batches, and how many CPU cores that takes.

Pictures and label maps of 128x128 as training sees them: decoded by nvJPEG and on the CPU (label maps), moved, turned and
mirrored on the GPU, with holes filled. Decoding alone reads from memory; whole batches read from the page cache. Wall time,
medians of rounds that alternate. Says so and stops where there is no GPU.
"""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from benchmarks import save
from benchmarks.faces import aligned_set
from collagan_dist.config.tree import Augment
from collagan_dist.data.loading.decode import Decoder, Decoders
from collagan_dist.data.loading.loader import Loader, View
from collagan_dist.data.loading.order import Order
from collagan_dist.data.packing.pack import pack
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.data.shards.shard_reader import SplitReader
from collagan_dist.types import World

SAMPLES, BATCH, SIZE, CANVAS, SEED, ROUNDS = 16_384, 512, 128, 176, 1, 7
STEPS = SAMPLES // BATCH


def main() -> None:
    if not torch.cuda.is_available():
        print("benchmarks.gpu: no CUDA device here")
        return
    device, threads = torch.device("cuda", 0), max(1, len(os.sched_getaffinity(0)) - 2)
    root, what = aligned_set(SAMPLES)
    recipe = Recipe(dataset="celeba_aligned", root=str(root), labels="Label/img_align_celeba", out=str(root / "out"))
    split = SplitReader(pack(recipe), "train")
    methods = {
        "decode alone, without label maps": decode_alone(split, False, threads, device),
        "decode alone": decode_alone(split, True, threads, device),
        "whole batches, block holes": whole_batches(split, threads, device),
    }
    save(
        __file__,
        {
            "gpu": torch.cuda.get_device_name(device),
            "data": f"{SAMPLES} {what}, packed as crops of {CANVAS} pixels; batches of {BATCH}; {threads} decoding threads",
            **measure(methods),
        },
    )
    shutil.rmtree(root)


def measure(methods: dict[str, Callable[[], int]]) -> dict[str, dict[str, float]]:
    """Images per second and CPU cores busy, medians; the first round warms up."""
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    for number in range(ROUNDS + 1):
        for name, method in methods.items():
            wall, busy = time.perf_counter(), time.process_time()
            images = method()
            torch.cuda.synchronize()
            wall, busy = time.perf_counter() - wall, time.process_time() - busy
            if number:
                rates[name].append((images / wall, busy / wall))
    return {
        name: {
            "images_per_s": round(statistics.median(r for r, _ in found)),
            "cpu_cores": round(statistics.median(c for _, c in found), 1),
        }
        for name, found in rates.items()
    }


def decode_alone(split: SplitReader, labels: bool, threads: int, device: torch.device) -> Callable[[], int]:
    decode = Decoder(BATCH, CANVAS, labels, False, threads, device)
    samples = [split.read(number) for number in range(BATCH)]

    def run() -> int:
        for _ in range(STEPS):
            decode(samples, np.zeros((BATCH, 4)))
        return STEPS * BATCH

    return run


def whole_batches(split: SplitReader, threads: int, device: torch.device) -> Callable[[], int]:
    loader = Loader(split, View(SIZE, "block", SEED, Augment(), training=True), BATCH, Decoders(threads, device))
    order = Order(len(split), BATCH, SEED, 2048, 128)
    starts: Iterator[int] = itertools.count(0, STEPS)

    def run() -> int:
        start = next(starts)
        return sum(len(batch.image_B3HW) for batch in loader.batches(order.steps(start, start + STEPS, World())))

    return run


if __name__ == "__main__":
    main()
