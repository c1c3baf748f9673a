"""What the peers' networks share. They are published for one or two sizes; widths that double carry them to others."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn


def doubling_widths(size: int, innermost: int, widest: int, narrowest: int = 1) -> list[int]:
    """Channels of the layers that halve `size` down to `innermost` pixels, from the picture inwards.

    The last has `widest`, each before it half as many, none fewer than `narrowest`.
    """
    levels = int(math.log2(size // innermost))
    return [max(narrowest, widest >> (levels - 1 - level)) for level in range(levels)]


class Unconditional(nn.Module):
    """A network that judges the picture alone, called like `Discriminators`: the input is not looked at."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, input_B3HW: torch.Tensor, *judged: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], ...]:
        """Logits of each set of task pictures, each set in a pass of its own."""
        return tuple({task: self.network(y) for task, y in pictures.items()} for pictures in judged)
