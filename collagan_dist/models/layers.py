"""Parts that several networks share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from collagan_dist.types import as_float32, is_channels_last

_LARGE_WEIGHT, _FEW_ROWS = 2**20, 256


def doubling_widths(size: int, innermost: int, widest: int, narrowest: int = 1) -> list[int]:
    """Return the channels of the layers that halve `size` down to `innermost` pixels, from the image inwards.

    The last layer has `widest`, each one before it half as many, and none fewer than `narrowest`.
    """
    # The papers give networks for one or two image sizes. Counted from the innermost layer, the same widths fit any other size.
    levels = int(math.log2(size // innermost))
    return [max(narrowest, widest >> (levels - 1 - level)) for level in range(levels)]


class Halve(nn.Conv2d):
    """A 4x4 convolution that halves the image."""

    def __init__(self, cin: int, cout: int, bias: bool) -> None:
        super().__init__(cin, cout, 4, 2, 1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, side = x.shape[0], x.shape[-1] // 2
        if not _is_faster_as_product(self.weight, x, count * side**2):
            return super().forward(x)
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        windows = padded.unfold(1, 4, 2).unfold(2, 4, 2)  # (B, h, w, C, 4, 4)
        rows = windows.permute(0, 1, 2, 4, 5, 3).reshape(count * side**2, -1)
        y = F.linear(rows, self.weight.permute(0, 2, 3, 1).flatten(1), self.bias)
        return y.view(count, side, side, -1).permute(0, 3, 1, 2)


class Double(nn.ConvTranspose2d):
    """A transposed 4x4 convolution that doubles the image."""

    def __init__(self, cin: int, cout: int, bias: bool) -> None:
        super().__init__(cin, cout, 4, 2, 1, bias=bias)

    def forward(self, x: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        count, side = x.shape[0], x.shape[-1]
        if self.bias is not None or not _is_faster_as_product(self.weight, x, count * side**2):
            return super().forward(x)
        rows = x.permute(0, 2, 3, 1).reshape(count * side**2, -1)
        # Of each pixel a 4x4 patch; they overlap, and are added in float32.
        patches = as_float32(rows @ self.weight.permute(0, 2, 3, 1).flatten(1))
        columns = patches.view(count, side**2, 16, -1).permute(0, 3, 2, 1).flatten(1, 2)
        return F.fold(columns, 2 * side, 4, stride=2, padding=1).to(rows.dtype)


def _is_faster_as_product(weight: torch.Tensor, x: torch.Tensor, rows: int) -> bool:
    # The innermost layers have large weights and few pixels. On a CPU one product of matrices takes a third to two thirds of the time
    # of a convolution there (benchmarks/step.py), if the weights lie in memory as the product needs them.
    return x.device.type == "cpu" and is_channels_last(weight) and weight.numel() >= _LARGE_WEIGHT and rows <= _FEW_ROWS


class BatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d that can normalize a batch in equal parts, each by its own statistics, as if it were called for one after the other.

    It does not count its calls: nothing reads `num_batches_tracked`, which would be one more operation for each layer.
    """

    def forward(self, x_BCHW: torch.Tensor, parts: int = 1) -> torch.Tensor:
        momentum = 0.0 if self.momentum is None else self.momentum
        if parts > 1 and self.training:
            return _normalize_parts(x_BCHW, self, parts)
        running = self.running_mean, self.running_var
        return F.batch_norm(x_BCHW, *running, self.weight, self.bias, self.training, momentum, self.eps)


class _NormalizeParts(torch.autograd.Function):
    # A function of its own, since to split and join a batch copies it.

    @staticmethod
    def forward(
        context: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, norm: BatchNorm, parts: int
    ) -> torch.Tensor:
        assert norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None
        running = norm.running_mean, norm.running_var
        y = torch.empty_like(x)
        statistics: list[torch.Tensor] = []
        for part, out in zip(x.chunk(parts), y.chunk(parts), strict=True):
            mean, invstd = torch.empty_like(running[0]), torch.empty_like(running[1])
            torch.ops.aten.native_batch_norm.out(
                part, weight, bias, *running, True, norm.momentum, norm.eps, out=out, save_mean=mean, save_invstd=invstd
            )
            statistics += mean, invstd
        context.save_for_backward(x, weight, *statistics)
        context.eps = norm.eps
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
        return torch.cat(of_x), reduce(torch.add, of_weight), reduce(torch.add, of_bias), None, None


def _normalize_parts(x: torch.Tensor, norm: BatchNorm, parts: int) -> torch.Tensor:
    if torch.compiler.is_compiling():  # a compiler joins without a copy, and does not know operations with `out`
        return torch.cat([norm(part) for part in x.chunk(parts)])
    return _NormalizeParts.apply(
        x, norm.weight, norm.bias, norm, parts
    )  # a function of its own for its type: `apply` has none


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
