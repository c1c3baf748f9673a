"""The generator G of section 3.4: a U-Net of 4x4 convolutions with stride 2, with one output head for all tasks."""

from __future__ import annotations

import math

import torch
from torch import nn

from collagan_dist import rng
from collagan_dist.models.layers import BatchNorm, Double, Halve
from collagan_dist.types import as_float32

_MAX_WIDTH_FACTOR = 8  # widths 64-128-256-512-512-..., as in pix2pix's unet_128
_DROPOUT_STREAM = 10  # of random numbers: the first layer's, then one for each
_NOISY_LAYERS = 3  # decoder layers with dropout, where z of eq. 1 enters


class Generator(nn.Module):
    """Maps a masked image (B, inputs, S, S) to task outputs (B, channels, S, S) in (-1, 1).

    The encoder halves the image down to 1x1: log2(S) layers, 7 at 128 pixels. The decoder mirrors it and gets the encoder's
    features by concatenation. `normalize_each` is model.normalize: each.
    """

    def __init__(
        self, channels: int, image_size: int, width: int, noise: float, inputs: int = 3, normalize_each: bool = False
    ) -> None:
        super().__init__()
        levels = int(math.log2(image_size))
        widths = [width * min(2**i, _MAX_WIDTH_FACTOR) for i in range(levels)]
        # No batch normalization in the first layer and the output (DCGAN), nor at 1x1, where it would normalize single values.
        self.encoder = nn.ModuleList(
            _down(cin, cout, norm=normalize_each or 0 < i < levels - 1)
            for i, (cin, cout) in enumerate(zip([inputs, *widths], widths, strict=False))
        )
        # Decoder layer j goes from level levels - j to levels - j - 1. All but the first also see the encoder's features.
        self.decoder = nn.ModuleList(
            _up(widths[i] * (1 if i == levels - 1 else 2), widths[i - 1]) for i in range(levels - 1, 0, -1)
        )
        # A bias before a normalization does nothing.
        self.output = nn.ConvTranspose2d(2 * widths[0], channels, 4, 2, 1, bias=not normalize_each)
        self.output_norm = BatchNorm(channels) if normalize_each else nn.Identity()
        self.noise = noise
        self.apply(initialize)

    def forward(self, input_B3HW: torch.Tensor, keys_B2: torch.Tensor) -> torch.Tensor:
        """Return the outputs of all tasks, stacked; `keys_B2` are the samples' random keys."""
        output = self.output_norm(self.output(self.features(input_B3HW, keys_B2)))
        # In float32: bfloat16 rounds the tanh of sparse outputs to -1, where the gradient is 0.
        return torch.tanh(as_float32(output))

    def features(self, input_B3HW: torch.Tensor, keys_B2: torch.Tensor) -> torch.Tensor:
        """Return (B, 2·width, S/2, S/2), the last features that all tasks share: the decoder's, then the encoder's."""
        kept = self._draw_dropout(keys_B2) if self.training and self.noise else []
        skips = []
        x = input_B3HW
        for layer in self.encoder:
            x = layer(x)
            skips.append(x)
        skips.pop()
        for number, layer in enumerate(self.decoder):
            x = layer(x)
            if number < len(kept):
                x = x * kept[number].view(x.shape) * (1 / (1 - self.noise))
            x = torch.cat([torch.relu(x), skips.pop()], dim=1)
        return x

    def _draw_dropout(self, keys_B2: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return which elements of the first decoder layers' outputs are kept, (B, elements) bool: pure functions of the keys."""
        # z of eq. 1 is dropout, as in pix2pix. No generator state: a resumed run, and any number of ranks, draws the same masks.
        widths = [layer[0].out_channels for layer in self.decoder[:_NOISY_LAYERS]]  # type: ignore[index]
        counts = tuple(width * 4 ** (number + 1) for number, width in enumerate(widths))
        return (rng.uniform_tensors(keys_B2, counts, _DROPOUT_STREAM) >= self.noise).split(counts, dim=1)

    def initialize_output(self, mean_C: torch.Tensor) -> None:
        """Set the output layer's bias so that outputs start at the targets' mean per channel."""
        # Without it sparse outputs (heatmaps, rare classes) stay at -1. The limit keeps tanh's gradient well above 0.
        limit = math.tanh(2.0)
        layer = self.output_norm if isinstance(self.output_norm, nn.BatchNorm2d) else self.output
        assert layer.bias is not None
        with torch.no_grad():
            layer.bias.copy_(torch.atanh(mean_C.clamp(-limit, limit)))


def _down(cin: int, cout: int, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = [Halve(cin, cout, bias=not norm)]
    if norm:
        layers.append(BatchNorm(cout))
    return nn.Sequential(*layers, nn.LeakyReLU(0.2, inplace=True))


def _up(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(Double(cin, cout, bias=False), BatchNorm(cout))


def initialize(module: nn.Module) -> None:
    """Initialize a layer as DCGAN does: weights from N(0, 0.02), normalization weights from N(1, 0.02)."""
    if any(parameter.is_meta for parameter in module.parameters(recurse=False)):
        return  # nothing to fill, and torch would import its compiler for it
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
