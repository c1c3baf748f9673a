"""The table of models (the paper's, CE, SII, GFC), and functions that build the parts of the configured one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from collagan_dist import rng
from collagan_dist.config.tree import Config
from collagan_dist.distributed.engine import Engine
from collagan_dist.models import ce, collagan, gfc, sii
from collagan_dist.models.networks import Networks, checkpoint_bytes
from collagan_dist.models.predictor import Predictor, Tasks
from collagan_dist.models.step import Step
from collagan_dist.runs.model_folder import InferenceParameters, read_inference_parameters
from collagan_dist.tasks import build_tasks


@dataclass(frozen=True)
class ModelKind:
    """One kind of model: the functions that build its networks, its training step and its predictor.

    `separate_optimizers` names the members of the discriminators with a learner each; () for one learner of all of them.
    """

    generator: Callable[[Config, Tasks], nn.Module]
    discriminators: Callable[[Config, Tasks], nn.Module]
    step: type[Step] = Step
    predictor: type[Predictor] = Predictor
    separate_optimizers: tuple[str, ...] = ()


# By model.name. Another model is a file beside this one and a line here.
MODEL_KINDS: dict[str, ModelKind] = {
    "collagan": ModelKind(collagan.generator, collagan.discriminators),
    "ce": ModelKind(ce.generator, ce.discriminators, ce.CEStep),
    "sii": ModelKind(sii.generator, sii.discriminators, sii.SIIStep, sii.SIIPredictor),
    # GFC starts its discriminators in different stages: with an Adam each, one that waits has no state yet.
    "gfc": ModelKind(gfc.generator, gfc.discriminators, gfc.GFCStep, separate_optimizers=gfc.DISCRIMINATORS),
}


def build_generator(config: Config, tasks: Tasks) -> nn.Module:
    """Return the generator with its initial parameters, which depend on the seed alone."""
    _seed(config, "generator")
    return MODEL_KINDS[config.model.name].generator(config, tasks)


def build_discriminators(config: Config, tasks: Tasks) -> nn.Module:
    """Return the discriminators with their initial parameters, which depend on the seed alone."""
    _seed(config, "discriminators")
    return MODEL_KINDS[config.model.name].discriminators(config, tasks)


def build_networks(config: Config, engine: Engine, tasks: Tasks) -> Networks:
    """Return the networks and learners of a run at its start."""
    separate = MODEL_KINDS[config.model.name].separate_optimizers
    return Networks(config, engine, build_generator(config, tasks), build_discriminators(config, tasks), separate)


def estimate_checkpoint_bytes(config: Config) -> int:
    """Return about how large a checkpoint of a run becomes, without memory for its networks."""
    return checkpoint_bytes(*networks_without_memory(config), bool(config.optim.ema))


def count_parameters(config: Config) -> dict[str, int]:
    """Return the trained parameters by network, without memory for them: the generator, and each discriminator by its name."""
    generator, discriminators = networks_without_memory(config)
    # The paper's are one for each task, in a table of their own.
    named = dict(getattr(discriminators, "of", discriminators).named_children())
    several = {f"{name} discriminator": module for name, module in named.items()}
    networks = {"generator": generator, **(several if len(named) > 1 else {"discriminator": discriminators})}
    sizes = {name: sum(p.numel() for p in module.parameters() if p.requires_grad) for name, module in networks.items()}
    return {name: size for name, size in sizes.items() if size}  # GFC's parser is not trained


def state_bytes(config: Config, parameters: dict[str, int]) -> int:
    """Return the bytes of float32 parameters, gradients and Adam's two moments, and of the generator's average where there is one."""
    return 4 * (4 * sum(parameters.values()) + parameters["generator"] * bool(config.optim.ema))


def networks_without_memory(config: Config) -> tuple[nn.Module, nn.Module]:
    """Return generator and discriminators on the device `meta`, which has shapes alone."""
    tasks = build_tasks(config)
    # Without warnings: GFC's parser has weights, for which meta has no place.
    with torch.device("meta"), warnings.catch_warnings(action="ignore"):
        return build_generator(config, tasks), build_discriminators(config, tasks)


def build_step(config: Config, engine: Engine, tasks: Tasks, networks: Networks, total_steps: int) -> Step:
    """Return the training step of a run of `total_steps`."""
    return MODEL_KINDS[config.model.name].step(config, engine, tasks, networks, total_steps)


def build_predictor(config: Config, engine: Engine, tasks: Tasks, networks: Networks) -> Predictor:
    """Return a predictor of networks that are being trained."""
    kind = MODEL_KINDS[config.model.name].predictor
    # Only SII completes with its discriminators; others need not hold them.
    discriminators = networks.discriminators if kind.needs_discriminators else None
    return kind(config, engine, tasks, networks.eval_generator, discriminators)


def load_predictor(model: Path, config: Config, engine: Engine, tasks: Tasks) -> tuple[Predictor, int]:
    """Return the predictor of a run folder or an exported folder, and its step. Raises CheckpointError."""
    weights = read_inference_parameters(model)
    return predictor_of(weights, config, engine, tasks), weights.step


def predictor_of(weights: InferenceParameters, config: Config, engine: Engine, tasks: Tasks) -> Predictor:
    """Return the predictor of weights that were read. Raises CheckpointError where they are not those of the configured model."""
    kind = MODEL_KINDS[config.model.name].predictor
    # First without memory: a configuration from elsewhere may ask for a network of any size.
    with torch.device("meta"):
        weights.check_generator(build_generator(config, tasks))
        if kind.needs_discriminators:
            weights.check_discriminators(build_discriminators(config, tasks))
    generator = build_generator(config, tasks)
    weights.load_generator(generator)
    discriminators = None
    if kind.needs_discriminators:  # SII's search; other models complete without them, and an export need not have them
        discriminators = build_discriminators(config, tasks)
        weights.load_discriminators(discriminators)
        discriminators = engine.prepare_module(discriminators)
    return kind(config, engine, tasks, engine.prepare_module(generator), discriminators)


def _seed(config: Config, network: str) -> None:
    # A seed of its own for each network: another width of one leaves the other's parameters as they are.
    torch.manual_seed(int(rng.key64(config.seed, network) >> 1))
