"""One rank of a large world rehearsed here: its real share of the order, real data, real networks, and real steps by DDP."""

from __future__ import annotations

import resource
import time
from typing import Any

import numpy as np
import torch

from collagan_dist.config.tree import Config
from collagan_dist.data.loading.order import check_batch, rank_positions
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.distributed import devices
from collagan_dist.distributed.engine import Engine
from collagan_dist.distributed.rehearsal import RehearsalEngine, RehearsalGroup
from collagan_dist.errors import ConfigError, NumericError
from collagan_dist.inference.perception import measured_tasks
from collagan_dist.plan.work import LAST_STEP, build_last_step
from collagan_dist.setup import Setup, training_order
from collagan_dist.tasks import build_tasks
from collagan_dist.types import World

_STEPS = 2  # the first makes Adam's state and DDP's buckets


def rehearse(config: Config, world: World, manifest: Manifest) -> dict[str, Any]:
    """Build rank `world.rank` and do its first steps; nothing is written. Collectives answer with this rank's own values.

    Raises what a start would raise. ConfigError and DataError: a batch that ranks cannot share, a missing split or annotation, an engine
    that several ranks do not have. NumericError: a loss was not finite.
    """
    if config.runtime.engine == "deepspeed":
        raise ConfigError(
            "--rehearse: a rank is rehearsed with DDP; add --set runtime.engine=ddp --set runtime.zero_stage=0"
        )
    check_batch(manifest.samples(config.data.split), config.schedule.batch, world, config.runtime.accumulate)
    device = devices.pick_device(World())  # the rank's own may be on another node
    devices.configure_torch(devices.thread_count(world, config.runtime.threads), config.deterministic)
    group = RehearsalGroup(world, device)
    with group:
        engine = _engine_type(config, world)(config.runtime, group)
        setup = Setup(config, world, device, group, engine, manifest, build_tasks(config))
        if config.evaluate.every:
            setup.split(config.evaluate.split)
            measured_tasks(setup)
        return _steps(setup, group)


def _engine_type(config: Config, world: World) -> type[Engine]:
    """Return DDP of a rehearsal; for `plain`, and alone, the plain engine, which refuses several ranks itself."""
    return RehearsalEngine if config.runtime.engine == "ddp" and world.size > 1 else Engine


def _steps(setup: Setup, group: RehearsalGroup) -> dict[str, Any]:
    config, world = setup.config, setup.world
    began = time.perf_counter()
    order, share = training_order(config, setup.manifest), config.schedule.batch // world.size
    ids = [order.step(number, world) for number in range(_STEPS)]
    ordered = time.perf_counter()
    loader = setup.loader(config.data.split, setup.view(training=True), share)
    step = build_last_step(config, setup.engine, setup.tasks)
    built = time.perf_counter()
    seconds: list[float] = []
    for number, batch in enumerate(loader.batches(iter(ids))):
        group.collectives.clear()
        before = time.perf_counter()
        verdict = step(batch, LAST_STEP).verdict.read()
        group.synchronize()
        seconds.append(time.perf_counter() - before)
        if not verdict.finite:
            raise NumericError(f"rank {world.rank}, step {number + 1}: the {verdict.side} met NaN or Inf")
    positions = rank_positions(0, config.schedule.batch, world)
    numbers = np.concatenate([one for one, _ in ids])
    return {
        "rank": world.rank, "ranks": world.size, "device": str(setup.device), "share": share,
        "positions of the first step": [int(positions[0]), int(positions[-1])],
        "first samples": ids[0][0][:8].tolist(),
        "shards of these steps": len(setup.split(config.data.split).shards_of(numbers)),
        "damaged samples": len(loader.damaged),
        "collectives a step": dict(group.collectives),
        "seconds": {"order": ordered - began, "networks": built - ordered, "steps": seconds},
        "memory bytes": _peak_memory(setup),
    }  # fmt: skip


def _peak_memory(setup: Setup) -> dict[str, int]:
    """Return the most memory that this process has had: of the host, and of a GPU."""
    found = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if setup.device.type == "cuda":
        found["device"] = torch.cuda.max_memory_allocated(setup.device)
    return found
