"""One GAN step in two phases. The generator runs forward once; each phase owns one side while the other is frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from collagan_dist.config.tree import Adam, Config
from collagan_dist.distributed.engine import Engine, Learner, NotFinite
from collagan_dist.losses import accuracy, discriminator_term, generator_term, weighted_sum
from collagan_dist.models.discriminator import SHARED
from collagan_dist.models.networks import BatchNormSnapshot, Networks, trainable_parameters
from collagan_dist.models.predictor import TaskTensors, generator_input, split_channels
from collagan_dist.tasks.base import Task
from collagan_dist.types import Batch

Values = dict[str, torch.Tensor]


@dataclass
class MicroBatch:
    """A part of this rank's share of a batch; `outputs` are G's, from the one forward pass that both phases use."""

    batch: Batch
    targets: TaskTensors
    outputs: TaskTensors | None = None


# The losses of a part, one a learner, and what is logged of them.
Loss = Callable[[MicroBatch], tuple[list[torch.Tensor], Values]]


class Step:
    """step(batch, number) learns from one batch and returns its losses, unreduced, on the device.

    Raises NotFinite, on all ranks, when a phase met NaN or Inf on any: that phase and the ones after it changed nothing.
    """

    def __init__(self, config: Config, engine: Engine, tasks: dict[str, Task], networks: Networks, total: int) -> None:
        self.config, self.engine, self.tasks, self.networks, self.total = config, engine, tasks, networks, total
        self.weights = objective_weights(config)

    def __call__(self, batch: Batch, number: int) -> Values:
        parts = [MicroBatch(b, self._targets(b)) for b in batch.split(self.config.runtime.accumulate)]
        kept = BatchNormSnapshot(self.networks.generator, self.networks.discriminators)
        try:
            values = self.learn(parts, number)
        except NotFinite:
            kept.restore()  # statistics may have seen the NaN
            raise
        self.networks.average(self.config.optim.ema)
        return values

    def learn(self, parts: list[MicroBatch], number: int) -> Values:
        """All updates of a step."""
        adversarial = number >= self.config.schedule.adv_from
        values = self.discriminator_phase(parts, number) if adversarial else {}
        return values | self.generator_phase(parts, number, adversarial)

    def discriminator_phase(self, parts: list[MicroBatch], number: int) -> Values:
        """D learns to tell y_t from G's: maximises log D(x, y) + log(1 - D(x, G)) of eqs. 1 and 4, task by task."""
        learner = self.networks.discriminator_learners[""]

        def judged(part: MicroBatch) -> tuple[list[torch.Tensor], Values]:
            fakes = {
                name: picture.detach()
                for name, picture in self.discriminator_inputs(part.batch, self.fakes_for_discriminator(part)).items()
            }
            with self.engine.autocast():
                real, fake = learner(part.batch.input_B3HW, part.targets, fakes)
            both = self.config.loss.adv_weighs == "both"
            losses = {
                name: discriminator_term(real[name], fake[name], self.weights[name][0] if both else 1.0)
                for name in real
            }
            values = {f"loss/{name}/disc": value.detach() for name, value in losses.items()}
            values |= {f"accuracy/{n}": accuracy(real[n], fake[n]) for n in real}
            return [torch.stack(list(losses.values())).sum()], values

        return self.update_discriminators([learner], judged, parts, number)

    def generator_phase(self, parts: list[MicroBatch], number: int, adversarial: bool) -> Values:
        """G minimises Σ λ_rec L_rec + λ_adv L_adv (eqs. 1-6) against discriminators that stand still."""

        def completed(part: MicroBatch) -> tuple[list[torch.Tensor], Values]:
            batch, outputs = part.batch, self.outputs_with_graph(part)
            rec = {name: self.reconstruction(name, outputs[name], batch, part.targets[name]) for name in self.tasks}
            adv: Values = {}
            if adversarial:
                with frozen(self.networks.discriminators), self.engine.autocast():
                    (logits,) = self.networks.discriminators(
                        batch.input_B3HW, self.discriminator_inputs(batch, outputs)
                    )
                adv = {name: generator_term(logits[name], self.config.loss.adv) for name in logits}
            loss = weighted_sum(rec, adv, self.weights)
            values = {f"loss/{name}/rec": value.detach() for name, value in rec.items()}
            values |= {f"loss/{name}/adv": value.detach() for name, value in adv.items()}
            return [loss], values | {"loss/total": loss.detach()}

        return self.update_generator(completed, parts, number)

    def fakes_for_discriminator(self, part: MicroBatch) -> TaskTensors:
        """G's outputs for D's phase. Of a batch in one part, their graph waits for G's phase.

        With more parts it would be one graph a part: then they are made without, and again in G's phase. They come out equal,
        since noise is a function of the sample.
        """
        if self.config.runtime.accumulate == 1:
            part.outputs = self._generate(part.batch)
            return part.outputs
        with torch.no_grad():
            kept = BatchNormSnapshot(self.networks.generator)
            outputs = self._generate(part.batch)
            kept.restore()
        return outputs

    def outputs_with_graph(self, part: MicroBatch) -> TaskTensors:
        """G's outputs for G's phase, with their graph."""
        outputs, part.outputs = part.outputs, None
        return outputs if outputs is not None else self._generate(part.batch)

    def reconstruction(self, name: str, output: torch.Tensor, batch: Batch, target: torch.Tensor) -> torch.Tensor:
        """L^t_rec of eq. 2 for the task `name`."""
        return self.tasks[name].reconstruction(output, batch, target)

    def update_generator(self, loss: Loss, parts: list[MicroBatch], number: int) -> Values:
        """One step of G down the mean over parts of the loss that `loss(part)` has; the means of its values, and the gradient's norm."""
        rate = self._rate(self.config.optim.generator, number)
        return self._update("generator", [self.networks.generator_learner], loss, parts, rate)

    def update_discriminators(
        self, learners: list[Learner], loss: Loss, parts: list[MicroBatch], number: int
    ) -> Values:
        """The same for discriminators, with one loss a learner."""
        rate = self._rate(self.config.optim.discriminators, number)
        return self._update("discriminators", learners, loss, parts, rate)

    def _update(self, side: str, learners: list[Learner], loss: Loss, parts: list[MicroBatch], rate: float) -> Values:
        values: Values = {}

        def losses(index: int) -> list[torch.Tensor]:
            one_a_learner, found = loss(parts[index])
            for name, value in found.items():
                share = value / len(parts)
                values[name] = values[name] + share if name in values else share
            return one_a_learner

        norm = self.engine.update(side, learners, losses, len(parts), rate)
        return values | {f"gradient/{side}": norm}

    def loss_weights(self) -> dict[str, float]:
        """The weight in the total loss of each loss of G, by its name."""
        parts = (("adv", 0), ("rec", 1))
        return {f"loss/{task}/{part}": weights[n] for task, weights in self.weights.items() for part, n in parts}

    def learning_rate(self, number: int) -> float:
        """The generator's learning rate at a step."""
        return self._rate(self.config.optim.generator, number)

    def _targets(self, batch: Batch) -> TaskTensors:
        return {name: task.target(batch) for name, task in self.tasks.items()}

    def discriminator_inputs(self, batch: Batch, outputs: TaskTensors) -> TaskTensors:
        return {name: task.discriminator_input(outputs[name], batch) for name, task in self.tasks.items()}

    def _generate(self, batch: Batch) -> TaskTensors:
        with self.engine.autocast():
            seen = generator_input(self.config, batch.input_B3HW, batch.hole_B1HW)
            output = self.networks.generator_learner(seen, batch.keys_B2)
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
        self.parameters = trainable_parameters(module)

    def __enter__(self) -> None:
        for parameter in self.parameters:
            parameter.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        for parameter in self.parameters:
            parameter.requires_grad_(True)
