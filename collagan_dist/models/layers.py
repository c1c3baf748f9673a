"""Parts that several networks share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from collagan_dist.types import is_channels_last

_LARGE_WEIGHT, _FEW_ROWS = 2**21, 512


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
        if not _is_faster_as_product(self.weight, x, count * side**2, _FEW_ROWS):
            return super().forward(x)
        rows = patches(in_autocast(x).permute(0, 2, 3, 1)).view(count * side**2, -1)
        y = F.linear(rows, self.weight.permute(0, 2, 3, 1).flatten(1), self.bias)
        return y.view(count, side, side, -1).permute(0, 3, 1, 2)


class Double(nn.ConvTranspose2d):
    """A transposed 4x4 convolution that doubles the image."""

    def __init__(self, cin: int, cout: int, bias: bool) -> None:
        super().__init__(cin, cout, 4, 2, 1, bias=bias)

    def forward(self, x: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        count, side = x.shape[0], x.shape[-1]
        if self.bias is not None or not _is_faster_as_product(self.weight, x, count * side**2, 4 * _FEW_ROWS):
            return super().forward(x)
        rows = x.permute(0, 2, 3, 1).reshape(count * side**2, -1)
        y = rows @ self.weight.permute(0, 2, 3, 1).flatten(1)
        return sum_of_patches(y.view(count, side, side, 4, 4, -1)).permute(0, 3, 1, 2)


def _is_faster_as_product(weight: torch.Tensor, x: torch.Tensor, rows: int, few: int) -> bool:
    # The innermost layers have large weights and few pixels. On a CPU one product of matrices takes a fifth to two thirds of the time
    # of a convolution there (benchmarks/step.py), if the weights lie in memory as the product needs them.
    return x.device.type == "cpu" and is_channels_last(weight) and weight.numel() >= _LARGE_WEIGHT and rows <= few


class _Patches(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
        return _gather(x)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _scatter(gradient)


class _SumOfPatches(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, patches: torch.Tensor) -> torch.Tensor:
        return _scatter(patches)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _gather(gradient)


def patches(x_BHWC: torch.Tensor) -> torch.Tensor:
    """Return (B, H/2, W/2, 4, 4, C): the patch of 4x4 pixels around every second pixel; beyond the border are zeros."""
    return _Patches.apply(x_BHWC)


def sum_of_patches(patches_BHW44C: torch.Tensor) -> torch.Tensor:
    """Return (B, 2H, 2W, C): such patches put back, and added in float32 where they overlap."""
    return _SumOfPatches.apply(patches_BHW44C)


# Each is the other's derivative. F.fold and Tensor.unfold, which do the same, take two to four times as long.
def _gather(x: torch.Tensor) -> torch.Tensor:
    count, height, width, channels = x.shape
    found = x.new_empty(count, height // 2, width // 2, 4, 4, channels)
    for patch, pixels in _overlaps(found, F.pad(x.contiguous(), (0, 0, 1, 1, 1, 1))):
        patch.copy_(pixels)
    return found


def _scatter(patches: torch.Tensor) -> torch.Tensor:
    count, height, width, _, _, channels = patches.shape
    padded = patches.new_zeros(count, 2 * height + 2, 2 * width + 2, channels, dtype=torch.float32)
    for patch, pixels in _overlaps(patches, padded):
        pixels.add_(patch)
    return padded[:, 1:-1, 1:-1].to(patches.dtype, memory_format=torch.contiguous_format)


def _overlaps(patches: torch.Tensor, padded: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield views, (B, H, 2, W, 2, C), of the four quarters of all patches, and of the pixels that they cover."""
    count, height, width, _, _, channels = patches.shape
    blocks = padded.view(count, height + 1, 2, width + 1, 2, channels)
    for row in (0, 1):
        for column in (0, 1):
            quarter = patches[:, :, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            yield quarter.transpose(2, 3), blocks[:, row : row + height, :, column : column + width]


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
