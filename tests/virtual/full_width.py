"""A training step at full width whose batch never exists: bytes are a constant and a part for each sample, so two small batches give any.

Operations do not depend on the batch.
"""

from collections.abc import Callable, Mapping

import torch

from benchmarks.gpu_training import made_up
from collagan_dist.config.load import load_config
from collagan_dist.distributed.engines import build_engine
from collagan_dist.distributed.group import Group
from collagan_dist.models.registry import build_networks, build_step
from collagan_dist.tasks import build_tasks
from collagan_dist.types import World

SMALL = (2, 4)


def step_at_full_width(there: torch.device, size: int, *sets: str) -> Callable[[], object]:
    """Return M*_isd's step of the preset `stable` with all updates, on one batch."""
    config = load_config("stable", model="M*_isd", sets=["schedule.adv_from=0", *sets])
    engine, tasks = build_engine(config.runtime, Group(World(), there)), build_tasks(config)
    step = build_step(config, engine, tasks, build_networks(config, engine, tasks), 1000)
    batch = made_up(there, size)
    return lambda: step(batch, 0)


def bytes_at(batch: int, of_small: Mapping[int, Mapping[str, int]]) -> dict[str, float]:
    """Return the bytes by name at a batch from those at the small ones."""
    few, more = (of_small[size] for size in SMALL)
    each = {name: (more[name] - few[name]) / (SMALL[1] - SMALL[0]) for name in few}
    return {name: few[name] + (batch - SMALL[0]) * each[name] for name in few}
