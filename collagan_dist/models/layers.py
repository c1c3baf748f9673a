"""Parts that several networks share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def doubling_widths(size: int, innermost: int, widest: int, narrowest: int = 1) -> list[int]:
    """Return the channels of the layers that halve `size` down to `innermost` pixels, from the image inwards.

    The last layer has `widest`, each one before it half as many, and none fewer than `narrowest`.
    """
    # The papers give networks for one or two image sizes. Counted from the innermost layer, the same widths fit any other size.
    levels = int(math.log2(size // innermost))
    return [max(narrowest, widest >> (levels - 1 - level)) for level in range(levels)]


class BatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d that can normalize a batch in equal parts, each by its own statistics, as if it were called for one after the other.

    It does not count its calls: nothing reads `num_batches_tracked`, which would be one more operation for each layer.
    """

    def forward(self, x_BCHW: torch.Tensor, parts: int = 1) -> torch.Tensor:
        momentum = 0.0 if self.momentum is None else self.momentum
        if parts > 1 and self.training:
            return _normalize_parts(x_BCHW, self, momentum, parts)
        running = self.running_mean, self.running_var
        return F.batch_norm(x_BCHW, *running, self.weight, self.bias, self.training, momentum, self.eps)


class _NormalizeParts(torch.autograd.Function):
    # A function of its own, since to split and join a batch copies it.

    @staticmethod
    def forward(
        context: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        running: tuple[torch.Tensor, torch.Tensor],
        momentum: float,
        eps: float,
        parts: int,
    ) -> torch.Tensor:
        y = torch.empty_like(x)
        statistics: list[torch.Tensor] = []
        for part, out in zip(x.chunk(parts), y.chunk(parts), strict=True):
            mean, invstd = torch.empty_like(running[0]), torch.empty_like(running[1])
            torch.ops.aten.native_batch_norm.out(
                part, weight, bias, *running, True, momentum, eps, out=out, save_mean=mean, save_invstd=invstd
            )
            statistics += mean, invstd
        context.save_for_backward(x, weight, *statistics)
        context.eps = eps
        return y

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> Any:
        x, weight, *statistics = context.saved_tensors
        means, invstds = statistics[::2], statistics[1::2]
        pairs = zip(gradient.chunk(len(means)), x.chunk(len(means)), means, invstds, strict=True)
        of_parts = [
            torch.ops.aten.native_batch_norm_backward(
                above, part, weight, None, None, mean, invstd, True, context.eps, [True, True, True]
            )
            for above, part, mean, invstd in pairs
        ]
        of_x, of_weight, of_bias = zip(*of_parts, strict=True)
        return torch.cat(of_x), reduce(torch.add, of_weight), reduce(torch.add, of_bias), None, None, None, None


def _normalize_parts(x: torch.Tensor, norm: BatchNorm, momentum: float, parts: int) -> torch.Tensor:
    assert norm.running_mean is not None and norm.running_var is not None
    running = norm.running_mean, norm.running_var
    return _NormalizeParts.apply(x, norm.weight, norm.bias, running, momentum, norm.eps, parts)


def in_autocast(x: torch.Tensor) -> torch.Tensor:
    """Return x in the type that autocast's convolutions would give it; before it is joined with others, that is half the bytes."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


class Unconditional(nn.Module):
    """A discriminator that sees the image alone, called like `Discriminators`: the input is ignored."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, input_B3HW: torch.Tensor, *task_images: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], ...]:
        """Return the logits of each set of images."""
        # Batch statistics of real and generated images must not mix.
        return tuple({task: self.network(y) for task, y in images.items()} for images in task_images)
