"""One GAN step in two phases. The generator runs forward once; each phase owns one side while the other is frozen."""

from __future__ import annotations

import torch
from torch import nn

from collagan_dist import objective
from collagan_dist.config import Adam, Config
from collagan_dist.contract import Batch
from collagan_dist.models.discriminator import SHARED
from collagan_dist.runtime.engine import Engine
from collagan_dist.tasks.base import Task
from collagan_dist.training.networks import Networks, learned
from collagan_dist.training.predict import Pictures, generator_input, split_channels

Values = dict[str, torch.Tensor]


class Step:
    """step(batch, number) learns from one batch and returns its losses, unreduced, on the device."""

    def __init__(self, config: Config, engine: Engine, tasks: dict[str, Task], networks: Networks, total: int) -> None:
        self.config, self.engine, self.tasks, self.networks, self.total = config, engine, tasks, networks, total
        self.weights = objective_weights(config)
        self._generator = engine.wrap(networks.generator)
        self.wrap_discriminators()

    def wrap_discriminators(self) -> None:
        """What learns together is wrapped together: every update takes in all parameters of a wrapped network (DDP)."""
        self._discriminators = self.engine.wrap(self.networks.discriminators)

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
        both = self.config.loss.adv_weighs == "both"
        losses = {
            name: objective.discriminator_term(real[name], fake[name], self.weights[name][0] if both else 1.0)
            for name in real
        }
        norm = self.update_discriminators(torch.stack(list(losses.values())).sum(), number)
        values = {f"loss/{name}/disc": value.detach() for name, value in losses.items()}
        return values | {f"accuracy/{n}": objective.accuracy(real[n], fake[n]) for n in real} | norm

    def generator_phase(
        self, batch: Batch, targets: Pictures, outputs: Pictures, shown: Pictures, number: int, adversarial: bool
    ) -> Values:
        """G minimises Σ λ_rec L_rec + λ_adv L_adv (eqs. 1-6) against discriminators that stand still."""
        rec = {name: self.reconstruction(name, outputs[name], batch, targets[name]) for name in self.tasks}
        adv: Values = {}
        if adversarial:
            with frozen(self.networks.discriminators), self.engine.autocast():
                (logits,) = self.networks.discriminators(batch.input_B3HW, shown)
            adv = {name: objective.generator_term(logits[name], self.config.loss.adv) for name in logits}
        loss = objective.weighted_sum(rec, adv, self.weights)
        norm = self.update_generator(loss, number)
        values = {f"loss/{name}/rec": value for name, value in rec.items()} | {
            f"loss/{name}/adv": value for name, value in adv.items()
        }
        return {name: value.detach() for name, value in values.items()} | {"loss/total": loss.detach()} | norm

    def reconstruction(self, name: str, output: torch.Tensor, batch: Batch, target: torch.Tensor) -> torch.Tensor:
        """L^t_rec of eq. 2 for the task `name`."""
        return self.tasks[name].reconstruction(output, batch, target)

    def update_generator(self, loss: torch.Tensor, number: int) -> Values:
        """One step of G's optimizer; the norm of its gradient."""
        rate = self._rate(self.config.optim.generator, number)
        return {"gradient/generator": self.engine.update(loss, self.networks.generator_optimizer, rate)}

    def update_discriminators(self, loss: torch.Tensor, number: int) -> Values:
        """One step of the discriminators' optimizer; the norm of its gradient."""
        rate = self._rate(self.config.optim.discriminators, number)
        return {"gradient/discriminators": self.engine.update(loss, self.networks.discriminator_optimizer, rate)}

    def lambdas(self) -> dict[str, float]:
        """The weight in the total loss of each loss of G, by its name."""
        parts = (("adv", 0), ("rec", 1))
        return {f"loss/{task}/{part}": weights[n] for task, weights in self.weights.items() for part, n in parts}

    def rate(self, number: int) -> float:
        """The generator's learning rate at a step."""
        return self._rate(self.config.optim.generator, number)

    def _generate(self, batch: Batch) -> Pictures:
        with self.engine.autocast():
            seen = generator_input(self.config, batch.input_B3HW, batch.hole_B1HW)
            output = self._generator(seen, batch.keys_B2)
        return split_channels(output, self.tasks)

    def _rate(self, adam: Adam, number: int) -> float:
        """Constant, then linear from decay_from to the end."""
        start = adam.decay_from * self.total
        progress = (number - start) / (self.total - start) if number > start else 0.0
        return adam.lr * (1 + (adam.decay_to - 1) * min(1.0, progress))


def objective_weights(config: Config) -> dict[str, tuple[float, float]]:
    """(λ_adv, λ_rec) by task; one discriminator for all of them has their λ_adv together."""
    weights = {task: (w.adv, w.rec) for task, w in config.loss.weights.items()}
    if config.model.discriminators == "shared":
        weights[SHARED] = (sum(adv for adv, _ in weights.values()), 0.0)
    return weights


class frozen:
    """Inside, gradients flow through the module but not into it."""

    def __init__(self, module: nn.Module) -> None:
        self.parameters = learned(module)

    def __enter__(self) -> None:
        for parameter in self.parameters:
            parameter.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        for parameter in self.parameters:
            parameter.requires_grad_(True)
