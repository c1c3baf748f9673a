"""What a training step at full width asks of a GPU, counted on the virtual device: waits of the host, operations, bytes.

Operations do not depend on the batch, and bytes are a constant and a part for each sample: two small batches give any other one.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.gpu_training import made_up
from collagan_dist.config.load import load_config
from collagan_dist.distributed.engines import build_engine
from collagan_dist.distributed.group import Group
from collagan_dist.models.registry import build_networks, build_step
from collagan_dist.tasks import build_tasks
from collagan_dist.types import World
from tests.virtual import device


@dataclass
class Counts:
    """By name of the operation; `bytes` at the wanted batch. `waits` are those of the host."""

    operations: Counter[str]
    bytes: dict[str, float]
    waits: int


def count_step(batch: int, *sets: str) -> Counts:
    """Count M*_isd's step of the preset `stable` with all updates, at a batch that never exists."""
    small = [_count(size, sets) for size in (2, 4)]
    found = {}
    for name, few in small[0].bytes.items():
        each = (small[1].bytes[name] - few) / 2
        found[name] = few + (batch - 2) * each
    return Counts(small[0].operations, found, small[0].waits)


def _count(size: int, sets: tuple[str, ...]) -> Counts:
    step = _step(size, sets)
    step()  # what is made once
    device.RECORD.clear()
    step()
    record = device.RECORD
    return Counts(record.operations.copy(), dict(record.bytes), sum(sum(c.values()) for c in record.waits.values()))


def _step(size: int, sets: tuple[str, ...]) -> Callable[[], object]:
    config = load_config("stable", model="M*_isd", sets=["schedule.adv_from=0", *sets])
    there = torch.device("cuda", 0)
    engine, tasks = build_engine(config.runtime, Group(World(), there)), build_tasks(config)
    step = build_step(config, engine, tasks, build_networks(config, engine, tasks), 1000)
    batch = made_up(there, size)
    return lambda: step(batch, 0)
