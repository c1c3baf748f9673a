"""Training steps on a GPU: images per second of the whole GAN step by precision, layout, compilation and engine.

M*_isd of the preset `stable` (128x128, full widths, batch 256 where nothing else is said) on one batch that lies on the device, so that
nothing but the step is measured. Wall time, medians of rounds that alternate; the step's 30.6 GFLOP an image give the share of the
device's peak. Says so and stops where there is no GPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks import save
from collagan_dist import rng
from collagan_dist.config.load import load_config
from collagan_dist.data.loading import holes
from collagan_dist.distributed.engines import build_engine
from collagan_dist.distributed.group import Group
from collagan_dist.models.registry import build_networks, build_step
from collagan_dist.tasks import build_tasks
from collagan_dist.types import Batch, World

BATCH, SIZE, STEPS, ROUNDS = 256, 128, 20, 5
OTHER_BATCHES = (64, 1024)
WAYS = {
    "fp32": ["precision=fp32", "channels_last=false"],
    "fp32, channels_last": ["precision=fp32", "channels_last=true"],
    "bf16": ["precision=bf16", "channels_last=false"],
    "bf16, channels_last": ["precision=bf16", "channels_last=true"],
    "fp16, channels_last": ["precision=fp16", "channels_last=true"],
    "bf16, channels_last, compiled": ["precision=bf16", "channels_last=true", "compile=true"],
    "bf16, channels_last, in 4 parts": ["precision=bf16", "channels_last=true", "accumulate=4"],
}


def main() -> None:
    if not torch.cuda.is_available():
        print("benchmarks.gpu_training: no CUDA device here")
        return
    device = torch.device("cuda", 0)
    batch = made_up(device, BATCH)
    steps = {name: (BATCH, stepping(keys, batch, device)) for name, keys in WAYS.items()}
    best = WAYS["bf16, channels_last"]
    for size in OTHER_BATCHES:
        steps[f"bf16, channels_last, batch {size}"] = size, stepping(best, made_up(device, size), device)
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(ROUNDS + 1):
        for name, (size, step) in steps.items():
            began = time.perf_counter()
            for _ in range(STEPS):
                step()
            torch.cuda.synchronize()
            if number:
                rates[name].append(STEPS * size / (time.perf_counter() - began))
    medians = {name: round(statistics.median(values)) for name, values in rates.items()}
    save(
        __file__,
        {
            "gpu": torch.cuda.get_device_name(device),
            "batch": BATCH,
            "images_per_s": medians,
            "TFLOP/s": {name: round(rate * 30.6e9 / 1e12, 1) for name, rate in medians.items()},
        },
    )


def made_up(device: torch.device, count: int) -> Batch:
    """A batch of random pictures, labels and points."""
    torch.manual_seed(0)
    image = torch.rand(count, 3, SIZE, SIZE, device=device) * 2 - 1
    ids = np.arange(count)
    keys = torch.from_numpy(rng.sample_keys(0, 0, ids)).to(device)
    hole = holes.HOLES["block"](keys, SIZE)
    label = torch.randint(0, 11, (count, SIZE, SIZE), device=device, dtype=torch.uint8)
    points = torch.rand(count, 5, 2, device=device) * SIZE
    return Batch(image, torch.where(hole, 0.0, image), hole, label, points, ids, np.zeros(count, np.int64), keys)


def stepping(keys: list[str], batch: Batch, device: torch.device) -> Callable[[], None]:
    config = load_config("stable", sets=[f"runtime.{key}" for key in keys])
    engine, tasks = build_engine(config.runtime, Group(World(), device)), build_tasks(config)
    step = build_step(config, engine, tasks, build_networks(config, engine, tasks), 1000)

    def run() -> None:
        step(batch, 0)

    return run


if __name__ == "__main__":
    main()
