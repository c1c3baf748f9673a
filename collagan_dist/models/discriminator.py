"""The conditional discriminators D_t of sections 3.1 and 3.4, one per task."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from collagan_dist.models.generator import initialize
from collagan_dist.models.layers import BatchNorm, in_autocast
from collagan_dist.types import as_float32, is_channels_last

Tensors = Mapping[str, torch.Tensor]


# The name of the one discriminator of all tasks (model.discriminators: shared).
SHARED = "shared"


class Discriminator(nn.Module):
    """Maps x and y_t, (B, 3 + channels, H, W), to one logit per patch (B, 1, h, w); positive is real.

    `patch` is the side of a patch in pixels: 94 (section 3.4; h = H/32) or 70 (pix2pix; h = H/8 - 2). `normalize_each` is
    model.normalize: each.
    """

    def __init__(self, channels: int, width: int, patch: int = 94, normalize_each: bool = False) -> None:
        super().__init__()
        widths = [3 + channels, width, 2 * width, 4 * width, 8 * width]
        # Stride 2 throughout sees 94 pixels; stride 1 in the last two layers is pix2pix's discriminator, which sees 70.
        strides = [2, 2, 2, 2, 2] if patch == 94 else [2, 2, 2, 1, 1]
        layers: list[nn.Module] = []
        for number, (cin, cout) in enumerate(itertools.pairwise(widths)):
            # As in DCGAN, the first layer has no normalization.
            normalized = number > 0 or normalize_each
            layers.append(nn.Conv2d(cin, cout, 4, strides[number], 1, bias=not normalized))
            layers += [*([BatchNorm(cout)] if normalized else []), nn.LeakyReLU(0.2, inplace=True)]
        # Logits are never normalized: real and generated images are normalized apart, and would get the same mean.
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, strides[-1], 1))
        self.apply(initialize)

    def forward(self, x: torch.Tensor, parts: int = 1) -> torch.Tensor:
        """Return the logits. A batch of several equal `parts` is normalized part by part."""
        for layer in self.layers:
            x = layer(x, parts) if isinstance(layer, nn.BatchNorm2d) else layer(x)
        return x


class Discriminators(nn.Module):
    """D_Ω: the discriminators of all tasks as one module, with one optimizer and one gradient reduction."""

    def __init__(self, channels: Mapping[str, int], width: int, patch: int = 94, normalize_each: bool = False) -> None:
        super().__init__()
        self.of = nn.ModuleDict(
            {task: Discriminator(count, width, patch, normalize_each) for task, count in channels.items()}
        )

    def forward(self, input_B3HW: torch.Tensor, *task_images: Tensors) -> tuple[dict[str, torch.Tensor], ...]:
        """Return the logits by task of each set of images, such as the real and the generated ones."""
        return _in_one_pass(self.of, input_B3HW, task_images)


class SharedDiscriminator(nn.Module):
    """One discriminator that sees the images of all tasks together; section 3.1 tried and rejected it."""

    def __init__(self, channels: Mapping[str, int], width: int, patch: int = 94, normalize_each: bool = False) -> None:
        super().__init__()
        self.tasks = tuple(channels)
        self.of = nn.ModuleDict({SHARED: Discriminator(sum(channels.values()), width, patch, normalize_each)})

    def forward(self, input_B3HW: torch.Tensor, *task_images: Tensors) -> tuple[dict[str, torch.Tensor], ...]:
        """Return what `Discriminators` returns, with one entry for all tasks."""
        stacked = [{SHARED: torch.cat([images[task] for task in self.tasks], dim=1)} for images in task_images]
        return _in_one_pass(self.of, input_B3HW, stacked)


def _in_one_pass(
    networks: nn.ModuleDict, input_B3HW: torch.Tensor, sets: Sequence[Tensors]
) -> tuple[dict[str, torch.Tensor], ...]:
    """Return the logits by network of each set of images."""
    # All sets in one pass, in which convolutions are faster, and since DDP allows one forward pass for each backward pass. Batch
    # statistics do not mix: each set is normalized by itself.
    parts = len(sets)
    logits = [
        network(_pairs(input_B3HW, [images[name] for images in sets]), parts) for name, network in networks.items()
    ]
    rows = as_float32(torch.stack(logits)).chunk(parts, dim=1)
    return tuple(dict(zip(networks, row.unbind(), strict=True)) for row in rows)


def _pairs(input_B3HW: torch.Tensor, images: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return (B · sets, 3 + channels, H, W): the input beside the images, one set after the other."""
    x, count = in_autocast(input_B3HW), len(input_B3HW)
    if len(images) == 1:
        return torch.cat([x, in_autocast(images[0])], dim=1)
    # Straight to their places: to join them along one axis, then the other, moves most bytes twice.
    shape = count * len(images), 3 + images[0].shape[1], *x.shape[2:]
    layout = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    pairs = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
    for number, one in enumerate(images):
        rows = pairs[number * count : (number + 1) * count]
        rows[:, :3], rows[:, 3:] = x, one
    return pairs
