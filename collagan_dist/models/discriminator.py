"""D_t of sections 3.1 and 3.4: one conditional discriminator a task."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import nn

from collagan_dist.models.generator import initialize

Tensors = Mapping[str, torch.Tensor]


# The name of the one discriminator that judges all tasks at once.
SHARED = "shared"


class Discriminator(nn.Module):
    """x beside y_t (B, 3 + channels, H, W) to logits of patches (B, 1, h, w); positive is real.

    Five 4x4 convolutions; no batch normalization at input and output (DCGAN). `patch` is what a logit sees: 94 pixels
    with stride 2 throughout (section 3.4; h = H/32), 70 where the last two have stride 1 (pix2pix; h = H/8 - 2).
    """

    def __init__(self, channels: int, width: int, patch: int = 94) -> None:
        super().__init__()
        widths = [3 + channels, width, 2 * width, 4 * width, 8 * width]
        strides = [2, 2, 2, 2, 2] if patch == 94 else [2, 2, 2, 1, 1]
        layers: list[nn.Module] = []
        for number, (cin, cout) in enumerate(itertools.pairwise(widths)):
            convolution = nn.Conv2d(cin, cout, 4, strides[number], 1, bias=number == 0)
            layers += [convolution, nn.BatchNorm2d(cout), nn.LeakyReLU(0.2)]
        del layers[1]  # the first layer's normalization
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, strides[-1], 1))
        self.apply(initialize)

    def forward(self, input_B3HW: torch.Tensor, y_BCHW: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.cat([input_B3HW, y_BCHW], dim=1))


class Discriminators(nn.Module):
    """D_Ω, all of them as one module, so that one optimizer and one gradient reduction serve them."""

    def __init__(self, channels: Mapping[str, int], width: int, patch: int = 94) -> None:
        super().__init__()
        self.of = nn.ModuleDict({task: Discriminator(count, width, patch) for task, count in channels.items()})

    def forward(self, input_B3HW: torch.Tensor, *judged: Tensors) -> tuple[dict[str, torch.Tensor], ...]:
        """Logits of each set of task pictures. Each set has a pass of its own: batch statistics of real and fake
        pictures do not mix, and one call covers both where calls are wrapped (DDP)."""
        return tuple({task: self.of[task](input_B3HW, y) for task, y in pictures.items()} for pictures in judged)


class SharedDiscriminator(nn.Module):
    """One discriminator that sees the pictures of all tasks together, which section 3.1 tried and rejected."""

    def __init__(self, channels: Mapping[str, int], width: int, patch: int = 94) -> None:
        super().__init__()
        self.tasks = tuple(channels)
        self.of = nn.ModuleDict({SHARED: Discriminator(sum(channels.values()), width, patch)})

    def forward(self, input_B3HW: torch.Tensor, *judged: Tensors) -> tuple[dict[str, torch.Tensor], ...]:
        """As Discriminators, with one set of logits for all tasks."""
        stacked = (torch.cat([pictures[task] for task in self.tasks], dim=1) for pictures in judged)
        return tuple({SHARED: self.of[SHARED](input_B3HW, y)} for y in stacked)
