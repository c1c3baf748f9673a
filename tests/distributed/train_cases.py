"""Trains one of the cases of cases.py, on the ranks there are."""

from dataclasses import replace
from pathlib import Path

import torch

from collagan_dist.config.tree import Config
from collagan_dist.distributed.engines import build_engine
from collagan_dist.models.networks import Networks
from collagan_dist.models.registry import build_networks, build_step
from collagan_dist.setup import Setup, training_order
from tests.distributed.cases import STEPS, Case
from tests.training.small import small

Losses = list[dict[str, float]]


def settings(shards: Path, case: Case, **more: object) -> Config:
    return small(shards, schedule__batch=8, schedule__adv_from=1, hole__kind="pattern", seed=3, **case.changes, **more)


def with_engine(setup: Setup, config: Config) -> Setup:
    """Return the same ranks with the engine of another configuration."""
    return replace(setup, config=config, engine=build_engine(config.runtime, setup.group))


def learn(setup: Setup, networks: Networks, steps: range, total: int = STEPS) -> Losses:
    """Train; return the values of each step, means over ranks, and {} for a skipped step."""
    step = build_step(setup.config, setup.engine, setup.tasks, networks, total)
    loader = setup.loader("train", setup.view(training=True), setup.config.schedule.batch // setup.world.size)
    order, found = training_order(setup.config, setup.manifest), []
    for number, batch in zip(steps, loader.batches(order.steps(steps.start, steps.stop, setup.world)), strict=True):
        result = step(batch, number)
        if not result.verdict.finite:  # fp16 while the loss scale finds its size
            assert result.verdict.overflow
            found.append({})
            continue
        values = result.values
        means = setup.group.all_reduce_mean(torch.stack([values[name].double() for name in sorted(values)]))
        found.append(dict(zip(sorted(values), means.tolist(), strict=True)))
    return found


def flat(networks: Networks) -> dict[str, torch.Tensor]:
    """Return all tensors of a checkpoint by file and name. Collective."""
    return {f"{file}/{name}": t.clone() for file, found in networks.tensors().items() for name, t in found.items()}


def unflat(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """Return the tensors of `flat` by file again."""
    files: dict[str, dict[str, torch.Tensor]] = {}
    for path, value in tensors.items():
        file, _, name = path.partition("/")
        files.setdefault(file, {})[name] = value
    return files


def build(
    setup: Setup, case: Case, tensors: dict[str, torch.Tensor] | None = None, **more: object
) -> tuple[Setup, Networks]:
    """Return a setup and new networks for a case, at their start or with these tensors."""
    assert setup.config.data.shards is not None
    setup = with_engine(setup, settings(Path(setup.config.data.shards), case, **more))
    networks = build_networks(setup.config, setup.engine, setup.tasks)
    if tensors is not None:
        networks.restore(unflat(tensors))
    return setup, networks
