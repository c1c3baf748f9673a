"""What networks have in common in whose features completions are compared (evaluate.features)."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import nn

_EPSILON = 1e-10  # added to lengths, as in LPIPS: a feature vector may be 0


class Features(NamedTuple):
    """Features of one picture, float64: `pooled` (D,) for the Fréchet distance, `layers` (C, h, w) for the perceptual one."""

    pooled: torch.Tensor
    layers: list[torch.Tensor]


class FeatureNetwork(nn.Module):
    """A frozen network, always in eval mode. `kind` names it in results, `dimension` is D."""

    kind: str
    dimension: int

    def freeze(self) -> None:
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FeatureNetwork:
        return super().train(False)

    @abstractmethod
    def activations(self, image_B3HW: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return (B, D) pooled features and layers (B, C, h, w) of images in [-1, 1] of any size."""

    def layer_weights(self, layers: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the weight of each channel of each layer, (C,) float64: by default the mean over layers."""
        return [layer.new_full((len(layer),), 1 / len(layers)) for layer in layers]

    def features(self, image_3HW: torch.Tensor) -> Features:
        """Return the features of one picture in [-1, 1], measured alone and in float32."""
        # Alone: in another batch a convolution may round otherwise, and results would depend on the number of ranks.
        with torch.inference_mode():
            pooled, layers = self.activations(image_3HW[None].float())
        return Features(pooled[0].double(), [layer[0].double() for layer in layers])

    def distance(self, one: Features, other: Features) -> float:
        """Return LPIPS' distance: squared differences of unit feature vectors, weighted, averaged over pixels, summed over layers."""
        total = 0.0
        for a_Chw, b_Chw, weights_C in zip(one.layers, other.layers, self.layer_weights(one.layers), strict=True):
            difference_C = (_unit(a_Chw) - _unit(b_Chw)).square().mean(dim=(1, 2))
            total += float((difference_C * weights_C).sum())
        return total


def _unit(layer_Chw: torch.Tensor) -> torch.Tensor:
    return layer_Chw / (layer_Chw.square().sum(0, keepdim=True).sqrt() + _EPSILON)
