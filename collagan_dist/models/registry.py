"""The kinds of models there are: how each is built, learns a batch and completes one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from collagan_dist import rng
from collagan_dist.config.tree import Config
from collagan_dist.distributed.engine import Engine
from collagan_dist.models import ce, collagan, gfc, sii
from collagan_dist.models.networks import Networks
from collagan_dist.models.predictor import Predictor, Tasks
from collagan_dist.models.step import Step
from collagan_dist.runs.model_folder import read_inference_weights


@dataclass(frozen=True)
class Method:
    """One kind of model. `generator` and `discriminators` build its networks; their start depends on the seed alone.

    `separate_optimizers` names the members of the discriminators that learn one by one; () for all together.
    """

    generator: Callable[[Config, Tasks], nn.Module]
    discriminators: Callable[[Config, Tasks], nn.Module]
    step: type[Step] = Step
    predictor: type[Predictor] = Predictor
    separate_optimizers: tuple[str, ...] = ()


METHODS: dict[str, Method] = {
    "collagan": Method(collagan.generator, collagan.discriminators),
    "ce": Method(ce.generator, ce.discriminators, ce.CEStep),
    "sii": Method(sii.generator, sii.discriminators, sii.SIIStep, sii.SIIPredictor),
    "gfc": Method(gfc.generator, gfc.discriminators, gfc.GFCStep, separate_optimizers=gfc.DISCRIMINATORS),
}


def build_generator(config: Config, tasks: Tasks) -> nn.Module:
    _seed(config, "generator")
    return METHODS[config.model.name].generator(config, tasks)


def build_discriminators(config: Config, tasks: Tasks) -> nn.Module:
    _seed(config, "discriminators")
    return METHODS[config.model.name].discriminators(config, tasks)


def build_networks(config: Config, engine: Engine, tasks: Tasks) -> Networks:
    """All that a run learns, at its start."""
    separate_optimizers = METHODS[config.model.name].separate_optimizers
    return Networks(
        config, engine, build_generator(config, tasks), build_discriminators(config, tasks), separate_optimizers
    )


def build_step(config: Config, engine: Engine, tasks: Tasks, networks: Networks, total: int) -> Step:
    """How a run of `total` steps learns."""
    return METHODS[config.model.name].step(config, engine, tasks, networks, total)


def build_predictor(config: Config, engine: Engine, tasks: Tasks, networks: Networks) -> Predictor:
    """The model as it stands, completing."""
    kind = METHODS[config.model.name].predictor
    return kind(
        config, engine, tasks, networks.eval_generator, networks.discriminators if kind.needs_discriminators else None
    )


def load_predictor(model: Path, config: Config, engine: Engine, tasks: Tasks) -> tuple[Predictor, int]:
    """(the model of a run folder or an exported one, its step). Raises CheckpointError."""
    kind = METHODS[config.model.name].predictor
    scored = read_inference_weights(model)
    generator = build_generator(config, tasks)
    scored.load_generator(generator)
    judges = None
    if kind.needs_discriminators:
        judges = build_discriminators(config, tasks)
        scored.load_discriminators(judges)
        judges = engine.prepare_module(judges)
    return kind(config, engine, tasks, engine.prepare_module(generator), judges), scored.step


def _seed(config: Config, network: str) -> None:
    torch.manual_seed(int(rng.key64(config.seed, network) >> 1))
