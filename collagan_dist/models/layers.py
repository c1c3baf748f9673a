"""Parts that the networks of CE, SII and GFC share."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn


def doubling_widths(size: int, innermost: int, widest: int, narrowest: int = 1) -> list[int]:
    """Return the channels of the layers that halve `size` down to `innermost` pixels, from the image inwards.

    The last layer has `widest`, each one before it half as many, and none fewer than `narrowest`.
    """
    # The papers give networks for one or two image sizes. Counted from the innermost layer, the same widths fit any other size.
    levels = int(math.log2(size // innermost))
    return [max(narrowest, widest >> (levels - 1 - level)) for level in range(levels)]


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
