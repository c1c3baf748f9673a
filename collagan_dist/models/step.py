"""One training step of the collaborative GAN: an update of the discriminators, then an update of the generator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from collagan_dist.config.tree import Adam, Config
from collagan_dist.distributed.engine import Engine, Learner
from collagan_dist.distributed.update import PendingVerdict, Update
from collagan_dist.losses import accuracy, discriminator_term, generator_term
from collagan_dist.models.discriminator import SHARED
from collagan_dist.models.networks import BatchNormSnapshot, Networks
from collagan_dist.models.predictor import TaskTensors, generator_input, split_channels
from collagan_dist.models.step_graph import StepGraph, StepOutcome
from collagan_dist.tasks.base import Task
from collagan_dist.types import Batch

Scalars = dict[str, torch.Tensor]
# What an update needs of one micro-batch: a loss for each learner, and the scalars to log.
Losses = tuple[list[torch.Tensor], Scalars]


@dataclass
class MicroBatch:
    """One part of a rank's batch under `runtime.accumulate`. `targets` are y_t by task; None if each loss makes its own.

    `outputs` are G's outputs with their graph, until an update of the generator has used it; None if it has to run G itself.
    """

    batch: Batch
    targets: TaskTensors | None = None
    outputs: TaskTensors | None = None


@dataclass(frozen=True)
class StepResult:
    """The scalars of a step, on the device and of this rank alone, and its verdict."""

    values: Scalars
    verdict: PendingVerdict


class Step:
    """Called with a batch and the number of the step, from 0: trains on the batch.

    Subclasses train other models: they override `stage`, `updates`, or one of the losses. An update that was not finite on any rank,
    and all that follow it in the step, change nothing. That is decided on the device: the host learns of it later, from the verdict.
    """

    def __init__(
        self, config: Config, engine: Engine, tasks: dict[str, Task], networks: Networks, total_steps: int
    ) -> None:
        self.config, self.engine, self.tasks, self.networks = config, engine, tasks, networks
        self.total_steps = total_steps
        self.weights = lambda_pairs(config)
        self._discriminators = [SHARED] if config.model.discriminators == "shared" else list(tasks)
        # On the device: to bring a number there waits for it.
        self._adv_weights = torch.tensor([self.weights[name][0] for name in self._discriminators], device=engine.device)
        self._rec_weights = torch.tensor([self.weights[name][1] for name in tasks], device=engine.device)
        self._finite: torch.Tensor | None = None  # whether all updates of the step so far were finite
        self._rates: dict[str, float | torch.Tensor] = {"generator": 0.0, "discriminators": 0.0}
        self._graph = StepGraph() if config.runtime.cuda_graph else None
        if self._graph is not None:  # it reads them anew in each step
            self._rates = {side: torch.zeros((), device=engine.device) for side in self._rates}
        # What lies between two updates of parameters: three graphs under `runtime.compile: step`. Functions and no bound methods: in a
        # cycle of references the networks would outlive a rollback, which builds new ones.
        own = type(self)
        self._generate = engine.compiled(own.generate, "step")
        self._discriminator_loss = engine.compiled(own.discriminator_loss, "step")
        self._generator_loss = engine.compiled(own.generator_loss, "step")

    def __call__(self, batch: Batch, step: int) -> StepResult:
        batch = replace(
            batch,
            image_B3HW=self.engine.in_layout(batch.image_B3HW),
            input_B3HW=self.engine.in_layout(batch.input_B3HW),
        )
        self.set_learning_rates(step)
        stage = self.stage(step)
        outcome = self.run(batch, stage) if self._graph is None else self._graph(self.run, batch, stage)
        return StepResult(outcome.values, PendingVerdict(self.engine.group, outcome.sides, outcome.flags))

    def run(self, batch: Batch, stage: int) -> StepOutcome:
        """Do the updates of a step; nothing waits for the device."""
        # A compiled loss makes its targets while it reads them, so that they are never written to memory.
        keeps_targets = self.config.runtime.compile != "step"
        parts = batch.split(self.config.runtime.accumulate)
        micro_batches = [MicroBatch(part, self._targets(part) if keeps_targets else None) for part in parts]
        statistics = BatchNormSnapshot(self.networks.generator, self.networks.discriminators)
        if len(micro_batches) == 1:
            # One forward pass of G serves both updates. With more micro-batches it would hold one graph for each of them.
            micro_batches[0].outputs = self._generate(self, batch)
        values: Scalars = {}
        updates = []
        self._finite = None
        for update in self.updates(micro_batches, stage):
            values |= update.values
            updates.append(update)
            self._finite = update.finite
        statistics.restore(keep=update.finite)  # forward passes move them, and may have put a NaN in
        self.networks.average(self.config.optim.ema, update.finite)
        return StepOutcome(
            values, tuple(update.side for update in updates), torch.stack([one.flags for one in updates])
        )

    def updates(self, micro_batches: list[MicroBatch], stage: int) -> Iterator[Update]:
        """Do the updates of a step one by one."""
        if stage > 1:
            yield self.update_discriminators(micro_batches, stage)
        yield self.update_generator(micro_batches, stage)

    def stage(self, step: int) -> int:
        """Return which losses a step has: 1 those of reconstruction, 2 the adversarial ones too."""
        return 1 + (step >= self.config.schedule.adversarial_start(self.total_steps))

    def update_discriminators(self, micro_batches: list[MicroBatch], stage: int) -> Update:
        """Train D to tell y_t from G^t(x, z), task by task."""
        # Each stage but the first trains one learner more.
        learners = list(self.networks.discriminator_learners.values())[: stage - 1]
        with self.update("discriminators", learners, micro_batches) as update:
            for micro_batch in micro_batches:
                outputs = self.outputs_for_discriminator(micro_batch)
                update.backward(*self._discriminator_loss(self, micro_batch, outputs, stage))
        return update

    def update_generator(self, micro_batches: list[MicroBatch], stage: int) -> Update:
        """Train G against frozen discriminators."""
        with self.update("generator", [self.networks.generator_learner], micro_batches) as update:
            for micro_batch in micro_batches:
                outputs = (
                    micro_batch.outputs if micro_batch.outputs is not None else self._generate(self, micro_batch.batch)
                )
                with self.networks.frozen_discriminators():
                    losses = self._generator_loss(self, micro_batch, outputs, stage)
                update.backward(*losses)
                micro_batch.outputs = None  # their graph serves one update only
        return update

    def update(self, side: str, learners: Sequence[Learner], micro_batches: Sequence[MicroBatch]) -> Update:
        """Return the context of an update, which does nothing if an earlier one of the step was not finite."""
        return Update(self.engine, side, learners, self._rates[side], len(micro_batches), self._finite)

    def discriminator_loss(self, micro_batch: MicroBatch, outputs: TaskTensors, stage: int) -> Losses:
        """Return D's loss, minus log D(x, y) + log(1 - D(x, G)) of eqs. 1 and 4, summed over tasks; `outputs` are G's."""
        batch = micro_batch.batch
        fakes = self._discriminator_inputs(batch, outputs)
        # Real and fake in one call: DDP allows one forward pass for each backward pass.
        learner = self.networks.discriminator_learner
        real, fake = (_rows(logits) for logits in learner(batch.input_B3HW, self.targets(micro_batch), fakes))
        # `both` is another reading of the paper, in which λ_adv also scales the term of generated images.
        weight = self._adv_weights if self.config.loss.adv_weighs == "both" else 1.0
        losses = discriminator_term(real, fake, weight, dim=1)
        # Values stay on the device: the logger fetches them when a line is due.
        values = self._named("loss/{}/disc", losses.detach()) | self._named("accuracy/{}", accuracy(real, fake, dim=1))
        # One backward pass for all tasks: their discriminators share no parameter, so each gets its own gradient.
        return [losses.sum()], values

    def generator_loss(self, micro_batch: MicroBatch, outputs: TaskTensors, stage: int) -> Losses:
        """Return G's loss, Σ λ_rec L_rec + λ_adv L_adv of eqs. 1 to 6; without L_adv in stage 1. `outputs` are G's."""
        batch = micro_batch.batch
        rec = self.reconstruction(outputs, batch, self.targets(micro_batch))
        values = {f"loss/{name}/rec": loss.detach() for name, loss in rec.items()}
        loss = (self._rec_weights * torch.stack(list(rec.values()))).sum()
        if stage > 1:
            learner = self.networks.discriminator_learner
            (logits,) = learner.call_module(batch.input_B3HW, self._discriminator_inputs(batch, outputs))
            adv = generator_term(_rows(logits), self.config.loss.adv, dim=1)
            values |= self._named("loss/{}/adv", adv.detach())
            loss = loss + (self._adv_weights * adv).sum()
        return [loss], values | {"loss/total": loss.detach()}

    def reconstruction(self, outputs: TaskTensors, batch: Batch, targets: TaskTensors) -> Scalars:
        """Return L^t_rec of eq. 2 by task."""
        return {n: task.reconstruction(outputs[n], batch, targets[n]) for n, task in self.tasks.items()}

    def generate(self, batch: Batch) -> TaskTensors:
        """Return G^t(x, z) by task, with its graph."""
        seen = generator_input(self.config, batch.input_B3HW, batch.hole_B1HW)
        return split_channels(self.networks.generator_learner(seen, batch.keys_B2), self.tasks)

    def outputs_for_discriminator(self, micro_batch: MicroBatch) -> TaskTensors:
        """Return G's outputs for the discriminators' update, without their graph."""
        if micro_batch.outputs is not None:
            return {name: output.detach() for name, output in micro_batch.outputs.items()}
        # The generator's update runs G again. Noise is a function of the sample, so both outputs are equal, and
        # the statistics must move only once.
        statistics = BatchNormSnapshot(self.networks.generator)
        with torch.no_grad():
            outputs = self._generate(self, micro_batch.batch)
        statistics.restore()
        return outputs

    def targets(self, micro_batch: MicroBatch) -> TaskTensors:
        """Return y_t by task."""
        return micro_batch.targets if micro_batch.targets is not None else self._targets(micro_batch.batch)

    def _targets(self, batch: Batch) -> TaskTensors:
        return {name: task.target(batch) for name, task in self.tasks.items()}

    def loss_weights(self) -> dict[str, float]:
        """Return the weight that each of G's logged losses has in the total loss."""
        kinds = (("adv", 0), ("rec", 1))
        return {f"loss/{task}/{kind}": pair[n] for task, pair in self.weights.items() for kind, n in kinds}

    def set_learning_rates(self, step: int) -> None:
        """Set the learning rates of both sides for a step."""
        adams = {"generator": self.config.optim.generator, "discriminators": self.config.optim.discriminators}
        for side, rate in self._rates.items():
            # In float32, which a graph reads: so both ways compute the same.
            value = float(np.float32(self._learning_rate(adams[side], step)))
            self._rates[side] = rate.fill_(value) if isinstance(rate, torch.Tensor) else value

    def learning_rate(self, step: int) -> float:
        """Return the generator's learning rate in a step."""
        return self._learning_rate(self.config.optim.generator, step)

    def _learning_rate(self, adam: Adam, step: int) -> float:
        """Constant up to the share `decay_from` of the steps, then linear to `decay_to` times as much at the end."""
        # Of all steps, not of this start's: a run in several starts has the same rates.
        start = adam.decay_from * self.total_steps
        progress = (step - start) / (self.total_steps - start) if step > start else 0.0
        return adam.lr * (1 + (adam.decay_to - 1) * min(1.0, progress))

    def _named(self, name: str, values: torch.Tensor) -> Scalars:
        """Return the values, one for each discriminator, by name."""
        return {name.format(task): value for task, value in zip(self._discriminators, values.unbind(), strict=True)}

    def _discriminator_inputs(self, batch: Batch, outputs: TaskTensors) -> TaskTensors:
        return {name: task.discriminator_input(outputs[name], batch) for name, task in self.tasks.items()}


def _rows(logits: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits of all discriminators, one a row."""
    return torch.stack([one.flatten() for one in logits.values()])


def lambda_pairs(config: Config) -> dict[str, tuple[float, float]]:
    """Return (λ_adv, λ_rec) by task. A shared discriminator has the sum of all λ_adv and no reconstruction."""
    pairs = {task: (w.adv, w.rec) for task, w in config.loss.weights.items()}
    if config.model.discriminators == "shared":
        pairs[SHARED] = (sum(adv for adv, _ in pairs.values()), 0.0)
    return pairs
