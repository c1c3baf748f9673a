"""A trained model at work: batches in, pictures by task out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from collagan_dist.config.tree import Config
from collagan_dist.distributed.engine import Engine
from collagan_dist.tasks.base import Task
from collagan_dist.types import Batch

TaskTensors = dict[str, torch.Tensor]
Blend = Callable[[TaskTensors, Batch], TaskTensors]
Tasks = dict[str, Task]


class Predictor:
    """predictor(batch) gives G^t(x, z) of every task, in float32: running statistics and no noise unless `evaluate` says otherwise."""

    needs_discriminators = False  # whether completing takes the discriminators too

    def __init__(
        self,
        config: Config,
        engine: Engine,
        tasks: Tasks,
        generator: nn.Module,
        discriminators: nn.Module | None = None,
    ) -> None:
        self.config, self.engine, self.tasks = config, engine, tasks
        self.generator, self.discriminators = generator, discriminators

    def __call__(self, batch: Batch) -> TaskTensors:
        with (
            _tested(self.generator, self.config, len(batch.input_B3HW)),
            torch.inference_mode(),
            self.engine.autocast(),
        ):
            seen = generator_input(self.config, batch.input_B3HW, batch.hole_B1HW)
            output = self.generator(seen, batch.keys_B2)
        return split_channels(output, self.tasks)


def generator_input(config: Config, input_B3HW: torch.Tensor, hole_B1HW: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) x of eq. 1; (B, 4, H, W) with model.mask_channel, the hole as 1 in the last."""
    if not config.model.mask_channel:
        return input_B3HW
    return torch.cat([input_B3HW, hole_B1HW.to(input_B3HW.dtype)], dim=1)


def split_channels(output_BCHW: torch.Tensor, tasks: Tasks) -> TaskTensors:
    """G^t(x, z) by task from the stacked output."""
    parts = output_BCHW.split([task.channels for task in tasks.values()], dim=1)
    return dict(zip(tasks, parts, strict=True))


class _tested:
    """Inside, the generator is as `evaluate` looks at it; it trains on as before afterwards."""

    def __init__(self, generator: nn.Module, config: Config, samples: int) -> None:
        self.generator, self.config = generator, config.evaluate
        self.batch_norm = config.evaluate.batch_norm == "batch" and samples > 1  # one sample has no statistics
        self.norms = [m for m in generator.modules() if isinstance(m, nn.BatchNorm2d)]

    def __enter__(self) -> None:
        self.was = self.generator.training
        self.generator.eval()
        # The generator's own flag switches its dropout, a normalization's own flag that layer's statistics.
        self.generator.training = self.config.noise
        if self.batch_norm:
            self.momenta = [norm.momentum for norm in self.norms]
            for norm in self.norms:
                norm.training, norm.momentum = True, 0.0  # the running statistics stay as they are

    def __exit__(self, *_: object) -> None:
        if self.batch_norm:
            for norm, momentum in zip(self.norms, self.momenta, strict=True):
                norm.momentum = momentum
        self.generator.train(self.was)
