"""Run by test_ddp.py under torchrun: ten steps in float64, with several kinds of batch normalization; rank 0 writes the losses."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.distributed.engine import Engine
from collagan_dist.distributed.world import detect_world
from collagan_dist.models.registry import build_networks, build_step
from collagan_dist.setup import Setup, build_setup, training_order
from collagan_dist.types import Batch
from tests.training.small import small

STEPS = 10
WAYS: dict[str, dict[str, Any]] = {
    "over all ranks": {"runtime__sync_bn": True},
    "frozen": {},
    "per rank": {},
    "per rank, in two parts": {"runtime__accumulate": 2},
}


def losses(setup: Setup, frozen: bool) -> list[dict[str, float]]:
    """Values of every step, means over ranks."""
    networks = build_networks(setup.config, setup.engine, setup.tasks)
    step = build_step(setup.config, setup.engine, setup.tasks, networks, STEPS)
    if frozen:
        for module in (*networks.generator.modules(), *networks.discriminators.modules()):
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    loader = setup.loader("train", setup.view(training=True), setup.config.schedule.batch // setup.world.size)
    order, found = training_order(setup.config, setup.manifest), []
    for number, batch in enumerate(loader.batches(order.steps(0, STEPS, setup.world))):
        values = step(exact(batch), number).values
        means = setup.group.all_reduce_mean(torch.stack([values[name].double() for name in sorted(values)]))
        found.append(dict(zip(sorted(values), means.tolist(), strict=True)))
    return found


def exact(batch: Batch) -> Batch:
    return replace(batch, image_B3HW=batch.image_B3HW.double(), input_B3HW=batch.input_B3HW.double())


def main(shards: str, out: str) -> None:
    prepare = Engine.prepare_module
    Engine.prepare_module = lambda self, module: prepare(self, module).double()  # type: ignore[method-assign]
    found, setup = {}, None
    for way, changes in WAYS.items():
        config = small(Path(shards), schedule__batch=16, schedule__adv_from=2, hole__kind="pattern", **changes)
        if setup is None:
            setup = build_setup(config, detect_world(), read_manifest(Path(shards)))
        setup = replace(setup, config=config, engine=type(setup.engine)(config.runtime, setup.group))
        found[way] = losses(setup, way == "frozen")
    assert setup is not None
    if setup.world.is_rank0:
        Path(out).write_text(json.dumps(found))
    setup.group.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
