"""Steps per second of DDP and of DeepSpeed with ZeRO 0, 1 and 2, on two CPU ranks of one thread each, alternating in one run.

Beside them the same steps without communication: what DDP costs.

The paper's networks at width 16 on 64x64 pictures, one batch of noise of 8 samples a rank; medians over rounds, and ratios to DDP. Then
DDP alone at full width on 128x128 pictures.
CPUs with gloo say what the engines themselves cost, not what they are worth between GPUs.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import save
from collagan_dist.config.load import validate_config
from collagan_dist.config.tree import Config
from collagan_dist.distributed.engines import build_engine
from collagan_dist.distributed.group import Group
from collagan_dist.distributed.world import detect_world
from collagan_dist.models.registry import build_networks, build_step
from collagan_dist.tasks import build_tasks
from collagan_dist.types import Batch, World

ALONE = "no communication"  # each rank trains for itself
ENGINES = {
    ALONE: ("plain", 0),
    "DDP": ("ddp", 0),
    **{f"DeepSpeed, ZeRO {stage}": ("deepspeed", stage) for stage in (0, 1, 2)},
}
SHARE, ROUNDS = 8, 7  # samples of a rank, rounds


class Work(NamedTuple):
    """What one run of ranks does: the ways it compares, and the steps of a round."""

    size: int
    width: int
    steps: int
    ways: tuple[str, ...]


RUNS = {"narrow": Work(64, 16, 3, tuple(ENGINES)), "full width": Work(128, 64, 1, (ALONE, "DDP"))}


def main() -> None:
    found = {name: measure(name, work) for name, work in RUNS.items()}
    save(__file__, {"load": round(os.getloadavg()[0], 1), **found})


def measure(name: str, work: Work) -> dict[str, Any]:
    """Return steps per second of each way, and ratios to DDP. It starts the ranks, and this file again in each of them."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        subprocess.run([*start, "-m", "--", "benchmarks.engines", name, f"{folder}/found"], env=env, check=True)
        lines = [line.split("\t") for line in Path(folder, "found").read_text().splitlines()]
    seconds = {way: [float(value) for value in values] for way, *values in lines}
    rates = {way: work.steps / statistics.median(values) for way, values in seconds.items()}
    return {
        "data": f"2 ranks, {SHARE} pictures of {work.size}x{work.size} each, width {work.width}; {ROUNDS} rounds of {work.steps} steps",
        "steps per second": {way: round(rate, 2) for way, rate in rates.items()},
        "to DDP": {way: round(rate / rates["DDP"], 2) for way, rate in rates.items()},
    }


def rank(name: str, out: str) -> None:
    """One rank: builds all engines, then times rounds of each in turn."""
    work = RUNS[name]
    world, device = detect_world(), torch.device("cpu")
    torch.set_num_threads(1)
    group, steps = Group(world, device), {}
    for way in work.ways:
        config = settings(work, *ENGINES[way])
        own = Group(World(), device) if way == ALONE else group
        made, tasks = build_engine(config.runtime, own), build_tasks(config)
        steps[way] = build_step(config, made, tasks, build_networks(config, made, tasks), 10**6)
    batch = noise(work.size).split(world.size)[world.rank]
    seconds: dict[str, list[float]] = {way: [] for way in steps}
    for number in range(ROUNDS + 1):
        for way, step in steps.items():
            group.all_gather(None)
            began = time.perf_counter()
            for _ in range(work.steps):
                step(batch, 1)
            group.all_gather(None)
            if number:  # the first round warms up
                seconds[way].append(time.perf_counter() - began)
    if world.is_rank0:
        lines = ("\t".join([way, *map(str, values)]) for way, values in seconds.items())
        Path(out).write_text("\n".join(lines) + "\n")
    group.close()


def settings(work: Work, engine: str, stage: int) -> Config:
    tree = {
        "model": {"widths": {"generator": work.width, "discriminator": work.width}},
        "data": {"image_size": work.size},
        "runtime": {"engine": engine, "zero_stage": stage, "threads": 1},
    }
    return validate_config(tree, "benchmarks.engines")


def noise(size: int) -> Batch:
    """A batch for both ranks."""
    draw, count = torch.Generator().manual_seed(0), 2 * SHARE
    image = torch.rand(count, 3, size, size, generator=draw) * 2 - 1
    hole = torch.zeros(count, 1, size, size, dtype=torch.bool)
    hole[:, :, size // 4 : -size // 4, size // 4 : -size // 4] = True
    numbers = torch.arange(count)
    return Batch(
        image_B3HW=image,
        input_B3HW=torch.where(hole, torch.zeros(()), image),
        hole_B1HW=hole,
        label_BHW=torch.randint(0, 11, (count, size, size), generator=draw).to(torch.uint8),
        points_BK2=torch.rand(count, 5, 2, generator=draw) * size,
        ids_B=numbers.numpy(),
        epoch_B=numbers.numpy() * 0,
        keys_B2=torch.stack([numbers, numbers], 1).to(torch.int32),
    )


if __name__ == "__main__":
    rank(*sys.argv[1:]) if sys.argv[1:] else main()
