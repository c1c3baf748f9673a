"""All that is learned, as one object: networks, optimizers, moving average; to and from plain tensors."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from collagan_dist.config import Config
from collagan_dist.errors import CheckpointError
from collagan_dist.runtime.engine import Engine

Tensors = dict[str, torch.Tensor]


class Networks:
    """The generator, the discriminators and their optimizers. `ema` is the generator's moving average, or None."""

    def __init__(self, config: Config, engine: Engine, generator: nn.Module, discriminators: nn.Module) -> None:
        self.generator = engine.place(generator)
        self.discriminators = engine.place(discriminators)
        self.ema = copy.deepcopy(self.generator).requires_grad_(False) if config.optim.ema else None
        self.generator_optimizer = engine.optimizer(learned(self.generator), config.optim.generator)
        self.discriminator_optimizer = engine.optimizer(learned(self.discriminators), config.optim.discriminators)

    def average(self, decay: float) -> None:
        """Move the average by 1 - decay towards the generator, batch statistics included."""
        if self.ema is not None:
            pairs = zip(self.ema.state_dict().values(), self.generator.state_dict().values(), strict=True)
            mine, theirs = zip(*((a, b) for a, b in pairs if a.is_floating_point()), strict=True)
            torch._foreach_lerp_(list(mine), [t.detach() for t in theirs], 1 - decay)

    @property
    def scored(self) -> nn.Module:
        """The generator that evaluation uses."""
        return self.ema if self.ema is not None else self.generator

    def buffers(self) -> list[torch.Tensor]:
        """Running statistics: those of rank 0 count (checkpoint, evaluation)."""
        modules = [self.generator, self.discriminators, *([self.ema] if self.ema is not None else [])]
        return [buffer for module in modules for buffer in module.buffers()]

    def finite(self) -> bool:
        """Whether every parameter is a number."""
        parameters = [*self.generator.parameters(), *self.discriminators.parameters()]
        return bool(torch.stack([p.detach().isfinite().all() for p in parameters]).all())

    def tensors(self) -> dict[str, Tensors]:
        """Everything by file: plain names, the same for every engine and world size."""
        files = {"generator": self.generator.state_dict(), "discriminators": self.discriminators.state_dict()}
        files["optimizer"] = {
            f"{owner}/{name}/{key}": value
            for owner, name, parameter, optimizer in self._parameters()
            for key, value in optimizer.state[parameter].items()
        }
        if self.ema is not None:
            files["ema"] = self.ema.state_dict()
        return files

    def restore(self, files: dict[str, Tensors]) -> None:
        """Take back what `tensors` gave. Raises CheckpointError when it is of another network."""
        try:
            self.generator.load_state_dict(files["generator"])
            self.discriminators.load_state_dict(files["discriminators"])
            if self.ema is not None:
                self.ema.load_state_dict(files.get("ema") or files["generator"])
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(
                f"the checkpoint is of another network: {str(error).splitlines()[-1].strip()}"
            ) from None
        for owner, name, parameter, optimizer in self._parameters():
            prefix = f"{owner}/{name}/"
            state = {
                key.removeprefix(prefix): value for key, value in files["optimizer"].items() if key.startswith(prefix)
            }
            if state:
                optimizer.state[parameter] = {key: _like(parameter, value) for key, value in state.items()}

    def _parameters(self) -> Iterator[tuple[str, str, nn.Parameter, torch.optim.Optimizer]]:
        sides: Iterable[tuple[str, nn.Module, torch.optim.Optimizer]] = (
            ("generator", self.generator, self.generator_optimizer),
            ("discriminators", self.discriminators, self.discriminator_optimizer),
        )
        return (
            (owner, name, p, optimizer)
            for owner, module, optimizer in sides
            for name, p in module.named_parameters()
            if p.requires_grad
        )


def learned(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that a run changes; a network that only helps has none."""
    return [p for p in module.parameters() if p.requires_grad]


def _like(parameter: nn.Parameter, value: torch.Tensor) -> torch.Tensor:
    """A moment in its parameter's memory layout; the step counter as it is."""
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
