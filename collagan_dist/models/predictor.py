"""Inference with a trained model: from a batch to outputs by task."""

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
    """predictor(batch) returns G^t(x, z) of every task, in float32. `evaluate` says which statistics and noise it uses."""

    needs_discriminators = False

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
        mode = _EvaluationMode(self.generator, self.config, len(batch.input_B3HW))
        with mode, torch.inference_mode(), self.engine.autocast():
            seen = generator_input(self.config, batch.input_B3HW, batch.hole_B1HW)
            output = self.generator(seen, batch.keys_B2)
        return split_channels(output, self.tasks)


def generator_input(config: Config, input_B3HW: torch.Tensor, hole_B1HW: torch.Tensor) -> torch.Tensor:
    """Return x of eq. 1, (B, 3, H, W); with model.mask_channel (B, 4, H, W), whose last channel is 1 in the hole."""
    if not config.model.mask_channel:
        return input_B3HW
    # A filled image does not say by itself where its hole is.
    return torch.cat([input_B3HW, hole_B1HW.to(input_B3HW.dtype)], dim=1)


def split_channels(output_BCHW: torch.Tensor, tasks: Tasks) -> TaskTensors:
    """Return G^t(x, z) by task from the stacked output."""
    # In the order of the tasks, in which the generator stacks them.
    parts = output_BCHW.split([task.channels for task in tasks.values()], dim=1)
    return dict(zip(tasks, parts, strict=True))


class _EvaluationMode:
    """A context in which the generator runs as `evaluate` configures it; afterwards it is as before."""

    def __init__(self, generator: nn.Module, config: Config, samples: int) -> None:
        self.generator, self.config = generator, config.evaluate
        # pix2pix evaluates with the statistics of the batch; running statistics are the default.
        self.batch_norm = config.evaluate.batch_norm == "batch" and samples > 1  # a single sample has no spread
        self.norms = [m for m in generator.modules() if isinstance(m, nn.BatchNorm2d)]

    def __enter__(self) -> None:
        self.was_training = self.generator.training
        self.generator.eval()
        # The generator's own flag switches its dropout; each normalization's own flag switches its statistics.
        self.generator.training = self.config.noise
        if self.batch_norm:
            self.momenta = [norm.momentum for norm in self.norms]
            for norm in self.norms:
                norm.training, norm.momentum = True, 0.0  # the running statistics stay as they are

    def __exit__(self, *_: object) -> None:
        if self.batch_norm:
            for norm, momentum in zip(self.norms, self.momenta, strict=True):
                norm.momentum = momentum
        self.generator.train(self.was_training)
