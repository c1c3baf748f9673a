"""Steps per second of DDP and of DeepSpeed with ZeRO 0, 1 and 2, on two CPU ranks of one thread each, alternating in one run.

Beside them the same steps without communication: what DDP costs.

The paper's networks at width 16 on 64x64 pictures, one batch of noise of 8 samples a rank; medians over rounds, and ratios to DDP.
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
SIZE, WIDTH, SHARE, STEPS, ROUNDS = 64, 16, 8, 3, 7


def main() -> None:
    """Starts the ranks, and again this file in each of them."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        subprocess.run([*start, "-m", "--", "benchmarks.engines", f"{folder}/found"], env=env, check=True)
        lines = [line.split("\t") for line in Path(folder, "found").read_text().splitlines()]
    seconds = {name: [float(value) for value in values] for name, *values in lines}
    rates = {name: STEPS / statistics.median(values) for name, values in seconds.items()}
    save(
        __file__,
        {
            "data": f"2 ranks, {SHARE} pictures of {SIZE}x{SIZE} each, width {WIDTH}; {ROUNDS} rounds of {STEPS} steps",
            "load": round(os.getloadavg()[0], 1),
            "steps per second": {name: round(rate, 2) for name, rate in rates.items()},
            "to DDP": {name: round(rate / rates["DDP"], 2) for name, rate in rates.items()},
        },
    )


def rank(out: str) -> None:
    """One rank: builds all engines, then times rounds of each in turn."""
    world, device = detect_world(), torch.device("cpu")
    torch.set_num_threads(1)
    group, steps = Group(world, device), {}
    for name, (engine, stage) in ENGINES.items():
        config = settings(engine, stage)
        own = Group(World(), device) if name == ALONE else group
        made, tasks = build_engine(config.runtime, own), build_tasks(config)
        steps[name] = build_step(config, made, tasks, build_networks(config, made, tasks), 10**6)
    batch = noise().split(world.size)[world.rank]
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(ROUNDS + 1):
        for name, step in steps.items():
            group.all_gather(None)
            began = time.perf_counter()
            for _ in range(STEPS):
                step(batch, 1)
            group.all_gather(None)
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - began)
    if world.is_rank0:
        lines = ("\t".join([name, *map(str, values)]) for name, values in seconds.items())
        Path(out).write_text("\n".join(lines) + "\n")
    group.close()


def settings(engine: str, stage: int) -> Config:
    tree = {
        "model": {"widths": {"generator": WIDTH, "discriminator": WIDTH}},
        "data": {"image_size": SIZE},
        "runtime": {"engine": engine, "zero_stage": stage, "threads": 1},
    }
    return validate_config(tree, "benchmarks.engines")


def noise() -> Batch:
    """A batch for both ranks."""
    draw, count = torch.Generator().manual_seed(0), 2 * SHARE
    image = torch.rand(count, 3, SIZE, SIZE, generator=draw) * 2 - 1
    hole = torch.zeros(count, 1, SIZE, SIZE, dtype=torch.bool)
    hole[:, :, SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4] = True
    numbers = torch.arange(count)
    return Batch(
        image_B3HW=image,
        input_B3HW=torch.where(hole, torch.zeros(()), image),
        hole_B1HW=hole,
        label_BHW=torch.randint(0, 11, (count, SIZE, SIZE), generator=draw).to(torch.uint8),
        points_BK2=torch.rand(count, 5, 2, generator=draw) * SIZE,
        ids_B=numbers.numpy(),
        epoch_B=numbers.numpy() * 0,
        keys_B2=torch.stack([numbers, numbers], 1).to(torch.int32),
    )


if __name__ == "__main__":
    rank(*sys.argv[1:]) if sys.argv[1:] else main()
