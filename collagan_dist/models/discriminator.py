"""The conditional discriminators D_t of sections 3.1 and 3.4, one per task."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import nn

from collagan_dist.models.generator import initialize

Tensors = Mapping[str, torch.Tensor]


# The name of the one discriminator of all tasks (model.discriminators: shared).
SHARED = "shared"


class Discriminator(nn.Module):
    """Maps x and y_t (B, 3 + channels, H, W) to one logit per patch (B, 1, h, w); positive is real.

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
            layers += [*([nn.BatchNorm2d(cout)] if normalized else []), nn.LeakyReLU(0.2)]
        # Logits are never normalized: real and generated images have passes of their own, and would get the same mean.
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, strides[-1], 1))
        self.apply(initialize)

    def forward(self, input_B3HW: torch.Tensor, y_BCHW: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.cat([input_B3HW, y_BCHW], dim=1))


class Discriminators(nn.Module):
    """D_Ω: the discriminators of all tasks as one module, with one optimizer and one gradient reduction."""

    def __init__(self, channels: Mapping[str, int], width: int, patch: int = 94, normalize_each: bool = False) -> None:
        super().__init__()
        self.of = nn.ModuleDict(
            {task: Discriminator(count, width, patch, normalize_each) for task, count in channels.items()}
        )

    def forward(self, input_B3HW: torch.Tensor, *task_images: Tensors) -> tuple[dict[str, torch.Tensor], ...]:
        """Return the logits by task of each set of images, such as the real and the generated ones."""
        # Each set in its own pass, so that batch statistics of real and generated images do not mix; both in one call, since
        # DDP allows one forward pass for each backward pass.
        return tuple({task: self.of[task](input_B3HW, y) for task, y in images.items()} for images in task_images)


class SharedDiscriminator(nn.Module):
    """One discriminator that sees the images of all tasks together; section 3.1 tried and rejected it."""

    def __init__(self, channels: Mapping[str, int], width: int, patch: int = 94, normalize_each: bool = False) -> None:
        super().__init__()
        self.tasks = tuple(channels)
        self.of = nn.ModuleDict({SHARED: Discriminator(sum(channels.values()), width, patch, normalize_each)})

    def forward(self, input_B3HW: torch.Tensor, *task_images: Tensors) -> tuple[dict[str, torch.Tensor], ...]:
        """Return what `Discriminators` returns, with one entry for all tasks."""
        stacked = (torch.cat([images[task] for task in self.tasks], dim=1) for images in task_images)
        return tuple({SHARED: self.of[SHARED](input_B3HW, y)} for y in stacked)
