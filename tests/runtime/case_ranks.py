"""Run by test_deepspeed.py under torchrun, or alone: trains in several ways, one after the other in one process group.

For each case rank 0 writes the losses of its steps and the tensors of its checkpoint.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from collagan_dist.config import Config
from collagan_dist.data.manifest import read_manifest
from collagan_dist.runtime.engine import NotFinite, build_engine
from collagan_dist.runtime.world import detect
from collagan_dist.training.build import Setup, build, training_order
from collagan_dist.training.methods import build_networks, build_step
from collagan_dist.training.networks import Networks
from tests.runtime.cases import ALL, STEPS, Case
from tests.training.small import small

Losses = list[dict[str, float]]


def settings(shards: Path, case: Case) -> Config:
    return small(shards, schedule__batch=8, schedule__adv_from=1, hole__kind="pattern", seed=3, **case.changes)


def with_engine(setup: Setup, config: Config) -> Setup:
    """The same ranks, trained another way."""
    return replace(setup, config=config, engine=build_engine(config.runtime, setup.group))


def learn(setup: Setup, networks: Networks, steps: range, total: int = STEPS) -> Losses:
    """The values of each step, means over ranks; none of a step that is skipped."""
    step = build_step(setup.config, setup.engine, setup.tasks, networks, total)
    loader = setup.loader("train", setup.view(training=True), setup.config.schedule.batch // setup.world.size)
    order, found = training_order(setup.config, setup.manifest), []
    for number, batch in zip(
        steps, loader.batches(order.steps(steps.start, steps.stop, setup.world)), strict=True
    ):
        try:
            values = step(batch, number)
        except NotFinite as error:  # float16 finds its scale
            assert error.overflow
            found.append({})
            continue
        means = setup.group.mean(torch.stack([values[name].double() for name in sorted(values)]))
        found.append(dict(zip(sorted(values), means.tolist(), strict=True)))
    return found


def flat(networks: Networks) -> dict[str, torch.Tensor]:
    """All that is learned, by file and name. Collective."""
    return {f"{file}/{name}": t.clone() for file, found in networks.tensors().items() for name, t in found.items()}


def main(shards: str, out: str, *names: str) -> None:
    known = {case.name: case for case in (*ALL, *(case.reference for case in ALL))}
    world, setup = detect(), None
    for name in names:
        config = settings(Path(shards), known[name])
        if setup is None:
            setup = build(config, world, read_manifest(Path(shards)))
        setup = with_engine(setup, config)
        networks = build_networks(config, setup.engine, setup.tasks)
        found = learn(setup, networks, range(STEPS))
        tensors = flat(networks)
        if world.is_main:
            Path(out, f"{name}.json").write_text(json.dumps(found))
            save_file({k: v.contiguous() for k, v in tensors.items()}, Path(out, f"{name}.safetensors"))
    assert setup is not None
    setup.group.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
