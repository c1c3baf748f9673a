"""The seam for hardware: how a network is placed, wrapped, run and updated. The base is the plain case.

A GAN trains two networks, so an engine wraps modules one by one and an update names its optimizer.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP

from collagan_dist.config import Adam, Runtime
from collagan_dist.contract import World
from collagan_dist.errors import ConfigError

# torch 2.13 renamed the switch.
_NO_SYNC = (
    "forward_sync_buffers" if "forward_sync_buffers" in inspect.signature(DDP).parameters else "broadcast_buffers"
)
_RANK_BUFFERS: dict[str, Any] = {_NO_SYNC: False}


class Engine:
    """One device, one process."""

    def __init__(self, runtime: Runtime, device: torch.device) -> None:
        self.device = device
        self.bf16 = runtime.precision == "bf16"
        self.layout = torch.channels_last if runtime.channels_last else torch.contiguous_format

    def place(self, module: nn.Module) -> nn.Module:
        """The module on the device, in the configured memory layout."""
        return module.to(self.device).to(memory_format=self.layout)  # type: ignore[call-overload]

    def wrap(self, module: nn.Module) -> nn.Module:
        """What to call in training so that gradients are those of the global batch."""
        return module

    def optimizer(self, parameters: Iterable[nn.Parameter], adam: Adam) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=adam.lr, betas=adam.betas, fused=True)

    def autocast(self) -> AbstractContextManager:
        """Networks run inside; losses are computed outside, in float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def update(self, loss: torch.Tensor, optimizer: torch.optim.Optimizer, lr: float) -> torch.Tensor:
        """One step of the optimizer down the gradient of `loss`; the gradient's L2 norm, a scalar on the device."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = lr
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        optimizer.step()
        return norm


class DDPEngine(Engine):
    """Gradients averaged over ranks (torch DistributedDataParallel)."""

    def wrap(self, module: nn.Module) -> nn.Module:
        # Buffers are rank 0's by agreement and are shared when they matter (checkpoint, evaluation), not every step:
        # syncing them inside forward would touch batch statistics that an earlier pass of the same step still needs.
        devices = [self.device.index or 0] if self.device.type == "cuda" else None
        return DDP(module, device_ids=devices, gradient_as_bucket_view=True, **_RANK_BUFFERS)


ENGINES: dict[str, type[Engine]] = {"plain": Engine, "ddp": DDPEngine}


def build_engine(runtime: Runtime, world: World, device: torch.device) -> Engine:
    """The configured engine; a process alone is always plain."""
    if runtime.engine == "plain" and world.size > 1:
        raise ConfigError(
            f"runtime.engine: plain trains alone, this run has {world.size} ranks; set runtime.engine to ddp"
        )
    return ENGINES[runtime.engine if world.size > 1 else "plain"](runtime, device)
