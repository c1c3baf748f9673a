"""The networks of GFC (Li 2017), after the prototxt files of its code, which are for 128 pixels.

G is the lower half of VGG-19, two fully connected layers and a mirrored decoder, which unpools. No layer has a normalization.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

from collagan_dist.models.layers import doubling_widths
from collagan_dist.types import as_float32

_FULL = 8  # pixels of the layer that the fully connected ones see
_INNERMOST = 4  # pixels of a discriminator's last layer


class GFCGenerator(nn.Module):
    """Maps a filled image (B, 3, S, S) to a completed one. It does not end with tanh; eval mode clips the output to [-1, 1].

    With a width of 64 and S = 128: encoder 32-64-128-256 of 2, 2, 2 and 4 convolutions, full layers of 4096 and 16384.
    """

    def __init__(self, size: int, width: int, channels: int = 3) -> None:
        super().__init__()
        widths = doubling_widths(size, _FULL, 4 * width)
        deepest, cells = widths[-1], widths[-1] * _FULL**2
        self.encoder = nn.ModuleList(
            _convolutions([cin, *[cout] * _depth(cout, deepest)])
            for cin, cout in itertools.pairwise([channels, *widths])
        )
        # The second layer restores the shape of the first one's input, for the decoder to unpool.
        self.full = nn.Sequential(nn.Linear(cells, 64 * width), nn.ReLU(), nn.Linear(64 * width, cells), nn.ReLU())
        self.decoder = nn.ModuleList(
            _convolutions([here, *[min(width, here)] * (_depth(here, deepest) - 1), outer])
            for outer, here in reversed(list(itertools.pairwise([widths[0], *widths])))
        )
        self.output = nn.Conv2d(widths[0], 3, 3, 1, 1)
        self.apply(_xavier)
        # So the output starts near 0, the middle of [-1, 1].
        nn.init.normal_(self.output.weight, 0.0, 0.001)

    def forward(self, input_B3HW: torch.Tensor, keys_B2: torch.Tensor) -> torch.Tensor:
        """Complete the image; `keys_B2` is ignored, since there is no noise."""
        x, indices = input_B3HW, []
        for layer in self.encoder:
            x, index = F.max_pool2d(layer(x), 2, return_indices=True)
            indices.append(index)
        x = self.full(x.flatten(1)).view(x.shape)
        for layer in self.decoder:
            x = layer(unpool(x, indices.pop()))
        output = as_float32(self.output(x))
        # Not in training: a clipped pixel would have no gradient.
        return output if self.training else output.clamp(-1, 1)


class GFCDiscriminator(nn.Module):
    """Maps an image (B, 3, S, S) to one logit (B, 1, 1, 1); positive is real. Its last layer has 8 times the width."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        widths = doubling_widths(size, _INNERMOST, 8 * width)
        layers: list[nn.Module] = []
        for cin, cout in itertools.pairwise([3, *widths]):
            layers += [nn.Conv2d(cin, cout, 3, 1, 1), nn.LeakyReLU(0.2)]
            layers += [nn.Conv2d(cout, cout, 4, 2, 1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, _INNERMOST))
        self.apply(_gaussian)

    def forward(self, image_B3HW: torch.Tensor) -> torch.Tensor:
        return self.layers(image_B3HW)


def unpool(x_BCHW: torch.Tensor, indices_BCHW: torch.Tensor) -> torch.Tensor:
    """Return (B, C, 2H, 2W): values where max_pool2d took them from, zeros elsewhere."""
    batch, channels, height, width = x_BCHW.shape
    # max_pool2d counts its indices within each channel.
    flat = x_BCHW.new_zeros(batch, channels, 4 * height * width)
    flat = flat.scatter(2, indices_BCHW.flatten(2), x_BCHW.flatten(2))
    return flat.view(batch, channels, 2 * height, 2 * width)


def _depth(channels: int, deepest: int) -> int:
    """Return the number of convolutions of a level: 4 at the deepest, as in VGG-19's third level, else 2."""
    return 4 if channels == deepest else 2


def _convolutions(channels: list[int]) -> nn.Sequential:
    pairs = itertools.pairwise(channels)
    return nn.Sequential(*itertools.chain.from_iterable((nn.Conv2d(a, b, 3, 1, 1), nn.ReLU()) for a, b in pairs))


def _xavier(module: nn.Module) -> None:
    """Initialize a layer as Caffe's msra filler with variance_norm AVERAGE does: variance 4 / (inputs + outputs)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_normal_(module.weight, math.sqrt(2))
        assert module.bias is not None
        nn.init.zeros_(module.bias)


def _gaussian(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
