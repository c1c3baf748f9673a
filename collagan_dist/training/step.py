"""One GAN step in two phases. The generator runs forward once; each phase owns one side while the other is frozen."""

from __future__ import annotations

import torch
from torch import nn

from collagan_dist import objective
from collagan_dist.config import Adam, Config
from collagan_dist.contract import Batch
from collagan_dist.runtime.engine import Engine
from collagan_dist.tasks.base import Task
from collagan_dist.training.networks import Networks

Values = dict[str, torch.Tensor]
Pictures = dict[str, torch.Tensor]


class Step:
    """step(batch, number) learns from one batch and returns its losses, unreduced, on the device."""

    def __init__(self, config: Config, engine: Engine, tasks: dict[str, Task], networks: Networks, total: int) -> None:
        self.config, self.engine, self.tasks, self.networks, self.total = config, engine, tasks, networks, total
        self.weights = {task: (w.adv, w.rec) for task, w in config.loss.weights.items()}
        self._generator = engine.wrap(networks.generator)
        self._discriminators = engine.wrap(networks.discriminators)

    def __call__(self, batch: Batch, number: int) -> Values:
        adversarial = number >= self.config.schedule.adv_from
        targets = {name: task.target(batch) for name, task in self.tasks.items()}
        outputs = self._generate(batch)
        shown = {name: task.shown(outputs[name], batch) for name, task in self.tasks.items()}
        values = self.discriminator_phase(batch, targets, shown, number) if adversarial else {}
        values |= self.generator_phase(batch, targets, outputs, shown, number, adversarial)
        self.networks.average(self.config.optim.ema)
        return values

    def discriminator_phase(self, batch: Batch, targets: Pictures, shown: Pictures, number: int) -> Values:
        """D learns to tell y_t from G's: maximises log D(x, y) + log(1 - D(x, G)) of eqs. 1 and 4, task by task."""
        fakes = {name: picture.detach() for name, picture in shown.items()}
        with self.engine.autocast():
            real, fake = self._discriminators(batch.input_B3HW, targets, fakes)
        losses = {name: objective.discriminator_term(real[name], fake[name]) for name in self.tasks}
        loss = torch.stack(list(losses.values())).sum()
        self.engine.update(
            loss, self.networks.discriminator_optimizer, self._rate(self.config.optim.discriminators, number)
        )
        return {f"loss/{name}/disc": value.detach() for name, value in losses.items()}

    def generator_phase(
        self, batch: Batch, targets: Pictures, outputs: Pictures, shown: Pictures, number: int, adversarial: bool
    ) -> Values:
        """G minimises Σ λ_rec L_rec + λ_adv L_adv (eqs. 1-6) against discriminators that stand still."""
        rec = {name: task.reconstruction(outputs[name], batch, targets[name]) for name, task in self.tasks.items()}
        adv: Values = {}
        if adversarial:
            with frozen(self.networks.discriminators), self.engine.autocast():
                (logits,) = self.networks.discriminators(batch.input_B3HW, shown)
            adv = {name: objective.generator_term(logits[name], self.config.loss.adv) for name in self.tasks}
        loss = objective.weighted_sum(rec, adv, self.weights)
        self.engine.update(loss, self.networks.generator_optimizer, self._rate(self.config.optim.generator, number))
        values = {f"loss/{name}/rec": value for name, value in rec.items()} | {
            f"loss/{name}/adv": value for name, value in adv.items()
        }
        return {name: value.detach() for name, value in values.items()} | {"loss/total": loss.detach()}

    def rate(self, number: int) -> float:
        """The generator's learning rate at a step."""
        return self._rate(self.config.optim.generator, number)

    def _generate(self, batch: Batch) -> Pictures:
        with self.engine.autocast():
            output = self._generator(batch.input_B3HW, batch.keys_B2)
        return split_channels(output, self.tasks)

    def _rate(self, adam: Adam, number: int) -> float:
        """Constant, then linear from decay_from to the end."""
        start = adam.decay_from * self.total
        progress = (number - start) / (self.total - start) if number > start else 0.0
        return adam.lr * (1 + (adam.decay_to - 1) * min(1.0, progress))


def split_channels(output_BCHW: torch.Tensor, tasks: dict[str, Task]) -> Pictures:
    """G^t(x, z) by task, in float32, from the stacked output."""
    parts = output_BCHW.float().split([task.channels for task in tasks.values()], dim=1)
    return dict(zip(tasks, parts, strict=True))


class frozen:
    """Inside, gradients flow through the module but not into it."""

    def __init__(self, module: nn.Module) -> None:
        self.parameters = list(module.parameters())

    def __enter__(self) -> None:
        for parameter in self.parameters:
            parameter.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        for parameter in self.parameters:
            parameter.requires_grad_(True)
