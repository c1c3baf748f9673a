"""The seam for hardware: how a network is placed, run, and taught. The base is the plain case.

A GAN trains several networks, so an engine makes a `Learner` of each: the network with its optimizer. An update of one or more
learners is `update`: backward through the parts of the batch, one verdict of all ranks on the gradient, one step or none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from collagan_dist.config.tree import Adam, Runtime
from collagan_dist.distributed.group import Group
from collagan_dist.distributed.precision import LossScale
from collagan_dist.distributed.sync_bn import convert_sync_batchnorm
from collagan_dist.errors import ConfigError

_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

Tensors = dict[str, torch.Tensor]


class NotFinite(Exception):
    """A loss or a gradient is NaN or Inf on some rank: all ranks raise it together, and nothing was changed.

    (Batch statistics excepted, which forward passes move; the step puts them back.) `overflow`: only the scaled gradient of
    fp16 was too large; the scale has been lowered.
    """

    def __init__(self, side: str, overflow: bool, ranks: list[int]) -> None:
        super().__init__(side, overflow, ranks)
        self.side, self.overflow, self.ranks = side, overflow, ranks


class Learner:
    """A network that learns, with its Adam. The base: one process, whose gradient is the whole batch's.

    Called like the network, in training. `module` is the network itself, for everything else.
    """

    def __init__(self, engine: Engine, module: nn.Module, adam: Adam) -> None:
        self.engine, self.module, self.adam = engine, module, adam
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.scale = LossScale(engine.device) if engine.dtype == torch.float16 else None
        self.forward = self.wrap()
        self.optimizer = self.make_optimizer()

    def wrap(self) -> Callable[..., Any]:
        """What to call in training."""
        return self.engine.compiled(self.module)

    def make_optimizer(self) -> Any:
        return torch.optim.Adam(self.parameters, lr=self.adam.lr, betas=self.adam.betas, fused=True)

    def __call__(self, *args: Any) -> Any:
        return self.forward(*args)

    def set_grad_sync(self, last: bool) -> None:
        """Before a part of the batch: `last` completes the gradient. (G's forward pass of a batch in one part comes before it.)"""

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of a part's loss; after the last part it is that of all ranks' parts. Collective."""
        (loss if self.scale is None else loss * self.scale.value).backward()

    def norm(self) -> torch.Tensor:
        """L2 norm of the gradient, a scalar on the device and the same on all ranks; not finite where an element is not. Collective."""
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        return norm if self.scale is None else norm / self.scale.value

    def apply(self, lr: float, factor: torch.Tensor | None) -> None:
        """One step of Adam down the gradient times `factor` (None: 1). Collective."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if factor is not None:
            torch._foreach_mul_(gradients, factor)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()

    def zero_grad(self) -> None:
        """Drop the gradient: before an update, and in place of a step that is not taken."""
        self.optimizer.zero_grad(set_to_none=True)

    def reload_master_weights(self) -> None:
        """The module's parameters were set from outside: whatever copies of them the engine keeps must follow."""

    def optimizer_state(self) -> dict[str, Tensors]:
        """Adam's state by parameter name: `exp_avg`, `exp_avg_sq` (shape of the parameter) and `step`. Collective."""
        return {name: dict(self.optimizer.state[p]) for name, p in self._named() if self.optimizer.state[p]}

    def load_optimizer_state(self, moments: dict[str, Tensors]) -> None:
        """Take back what `optimizer_state` gave, of any engine and any number of ranks; parameters without an entry begin anew."""
        for name, parameter in self._named():
            if name in moments:
                self.optimizer.state[parameter] = {k: like(parameter, v) for k, v in moments[name].items()}

    def optimizer_tensors(self) -> list[torch.Tensor]:
        """What this rank holds of Adam's moments, on the device."""
        kept = [value for state in self.optimizer.state.values() for value in state.values()]
        return [value for value in kept if isinstance(value, torch.Tensor) and value.device == self.engine.device]

    def _named(self) -> Iterable[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.module.named_parameters() if p.requires_grad)


class Engine:
    """One process."""

    learner_type: type[Learner] = Learner

    def __init__(self, runtime: Runtime, group: Group) -> None:
        self.runtime, self.group, self.device = runtime, group, group.device
        self.dtype = _AUTOCAST[runtime.precision]
        self.layout = torch.channels_last if runtime.channels_last else torch.contiguous_format

    def prepare_module(self, module: nn.Module) -> nn.Module:
        """The module on the device, in the configured memory layout, its batch normalization over all ranks if configured."""
        if self.runtime.sync_bn and self.group.world.size > 1:
            module = convert_sync_batchnorm(module, self.group)
        return module.to(self.device).to(memory_format=self.layout)  # type: ignore[call-overload]

    def compiled(self, module: nn.Module) -> Callable[..., Any]:
        return torch.compile(module) if self.runtime.compile else module

    def learner(self, module: nn.Module, adam: Adam) -> Learner:
        """A placed module, ready to learn. Raises ConfigError where ranks would each learn alone."""
        if self.learner_type is Learner and self.group.world.size > 1:
            raise ConfigError(
                f"runtime.engine: plain trains alone, this run has {self.group.world.size} ranks; set runtime.engine to ddp"
            )
        return self.learner_type(self, module, adam)

    def autocast(self) -> AbstractContextManager:
        """Networks run inside; losses are computed outside, in float32."""
        return torch.autocast(self.device.type, self.dtype or torch.bfloat16, enabled=self.dtype is not None)

    def update(
        self,
        side: str,
        learners: Sequence[Learner],
        losses: Callable[[int], Sequence[torch.Tensor]],
        parts: int,
        lr: float,
    ) -> torch.Tensor:
        """One step of each learner down the gradient of its loss, averaged over the parts; the gradients' L2 norm, on the device.

        `losses(part)` runs the forward pass of a part and gives one loss a learner. Raises NotFinite, on all ranks, when a loss or a
        gradient is not finite on any of them; nothing has changed then. Collective.
        """
        for learner in learners:
            learner.zero_grad()
        finite = torch.ones((), dtype=torch.bool, device=self.device)
        for part in range(parts):
            for learner in learners:
                learner.set_grad_sync(last=part == parts - 1)
            found = losses(part)
            finite &= torch.stack([loss.detach() for loss in found]).isfinite().all()
            with self.group.collective(f"the gradient of the {side}"):
                for learner, loss in zip(learners, found, strict=True):
                    learner.backward(loss / parts)
        norm = torch.linalg.vector_norm(torch.stack([learner.norm() for learner in learners]))
        self._agree(side, learners, finite, norm)
        for learner in learners:
            learner.apply(lr, _factor(learner, norm))
        return norm

    def _agree(self, side: str, learners: Sequence[Learner], finite: torch.Tensor, norm: torch.Tensor) -> None:
        """Raise NotFinite on all ranks, or on none."""
        if self.group.all_reduce_and(finite & norm.isfinite()):
            for scale in (learner.scale for learner in learners if learner.scale is not None):
                scale.good()
            return
        for learner in learners:
            learner.zero_grad()
        sound = self.group.all_gather(bool(finite))
        lowered = (
            [learner.scale is not None and learner.scale.lower() for learner in learners] if all(sound) else [False]
        )
        overflow = all(lowered)
        raise NotFinite(side, overflow, [rank for rank, is_sound in enumerate(sound) if not is_sound])


def _factor(learner: Learner, norm: torch.Tensor) -> torch.Tensor | None:
    """What a gradient is multiplied by: the inverse of its loss's scale, and what shortens it to the configured length."""
    factor = None if learner.scale is None else 1 / learner.scale.value
    if learner.adam.clip:
        shorter = (learner.adam.clip / (norm + 1e-6)).clamp(max=1.0)
        factor = shorter if factor is None else shorter * factor
    return factor


def like(parameter: nn.Parameter, value: torch.Tensor) -> torch.Tensor:
    """A moment in its parameter's memory layout; the step counter as it is."""
    if value.shape != parameter.shape:
        return value.to(parameter.device, copy=True)  # Adam counts in place
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
