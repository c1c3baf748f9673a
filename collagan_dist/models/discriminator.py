"""D_t of sections 3.1 and 3.4: one conditional discriminator a task."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import nn

from collagan_dist.models.generator import _initialize

Tensors = Mapping[str, torch.Tensor]


class Discriminator(nn.Module):
    """x beside y_t (B, 3 + channels, H, W) to logits of patches (B, 1, H/32, W/32); positive is real.

    Five 4x4 convolutions with stride 2; no batch normalization at input and output (DCGAN).
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [3 + channels, width, 2 * width, 4 * width, 8 * width]
        layers: list[nn.Module] = []
        for number, (cin, cout) in enumerate(itertools.pairwise(widths)):
            layers += [nn.Conv2d(cin, cout, 4, 2, 1, bias=number == 0), nn.BatchNorm2d(cout), nn.LeakyReLU(0.2)]
        del layers[1]  # the first layer's normalization
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 2, 1))
        self.apply(_initialize)

    def forward(self, input_B3HW: torch.Tensor, y_BCHW: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.cat([input_B3HW, y_BCHW], dim=1))


class Discriminators(nn.Module):
    """D_Ω, all of them as one module, so that one optimizer and one gradient reduction serve them."""

    def __init__(self, channels: Mapping[str, int], width: int) -> None:
        super().__init__()
        self.of = nn.ModuleDict({task: Discriminator(count, width) for task, count in channels.items()})

    def forward(self, input_B3HW: torch.Tensor, *judged: Tensors) -> tuple[dict[str, torch.Tensor], ...]:
        """Logits of each set of task pictures. Each set has a pass of its own: batch statistics of real and fake
        pictures do not mix, and one call covers both where calls are wrapped (DDP)."""
        return tuple({task: self.of[task](input_B3HW, y) for task, y in pictures.items()} for pictures in judged)
