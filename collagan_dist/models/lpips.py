"""LPIPS (Zhang 2018): AlexNet or VGG16 with learned channel weights, by the tensors of the packages lpips and torchmetrics."""

# Written out here because both packages build the networks by torchvision.

from __future__ import annotations

import torch
from torch import nn

from collagan_dist.models.feature_network import FeatureNetwork

# Of ImageNet's normalization, for images in [-1, 1].
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
# Convolutions (number in torchvision's list of layers, channels in, out, kernel, stride, padding) of the slices that end in the
# compared layers, by network; a slice but the first begins with a pooling of (kernel, stride).
_Convolution = tuple[int, int, int, int, int, int]
_ALEX: list[list[_Convolution]] = [
    [(0, 3, 64, 11, 4, 2)], [(3, 64, 192, 5, 1, 2)], [(6, 192, 384, 3, 1, 1)], [(8, 384, 256, 3, 1, 1)], [(10, 256, 256, 3, 1, 1)],
]  # fmt: skip
_VGG: list[list[_Convolution]] = [
    [(0, 3, 64, 3, 1, 1), (2, 64, 64, 3, 1, 1)],
    [(5, 64, 128, 3, 1, 1), (7, 128, 128, 3, 1, 1)],
    [(10, 128, 256, 3, 1, 1), (12, 256, 256, 3, 1, 1), (14, 256, 256, 3, 1, 1)],
    [(17, 256, 512, 3, 1, 1), (19, 512, 512, 3, 1, 1), (21, 512, 512, 3, 1, 1)],
    [(24, 512, 512, 3, 1, 1), (26, 512, 512, 3, 1, 1), (28, 512, 512, 3, 1, 1)],
]
# By kind: slices, the kernel of poolings (their stride is 2), and which slices begin with one.
_NETWORKS = {"alex": (_ALEX, 3, (1, 2)), "vgg": (_VGG, 2, (1, 2, 3, 4))}


class Lpips(FeatureNetwork):
    """Features: the last layer, averaged over pixels; layers: the five of LPIPS with its weights."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        slices, kernel, self._pooled = _NETWORKS[kind]
        self.kind, self.dimension = f"lpips-{kind}", slices[-1][-1][2]
        self._pool = nn.MaxPool2d(kernel, 2)
        self.net = nn.Module()
        for number, convolutions in enumerate(slices, 1):
            part = nn.Sequential()
            for name, cin, cout, side, stride, padding in convolutions:
                part.add_module(str(name), nn.Conv2d(cin, cout, side, stride, padding))
                part.add_module(f"relu{name}", nn.ReLU())
            self.net.add_module(f"slice{number}", part)
        for number, convolutions in enumerate(slices):
            # In the files it is the second layer, after a dropout.
            head = nn.ModuleDict({"1": nn.Conv2d(convolutions[-1][2], 1, 1, bias=False)})
            self.add_module(f"lin{number}", nn.ModuleDict({"model": head}))

    def activations(self, image_B3HW: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """As FeatureNetwork; images keep their size."""
        shift, scale = (image_B3HW.new_tensor(values)[:, None, None] for values in (_SHIFT, _SCALE))
        x = (image_B3HW - shift) / scale
        layers = []
        for number, part in enumerate(self.net.children()):
            x = part(self._pool(x) if number in self._pooled else x)
            layers.append(x)
        return x.mean(dim=(2, 3)), layers

    def layer_weights(self, layers: list[torch.Tensor]) -> list[torch.Tensor]:
        """As FeatureNetwork: the learned ones."""
        return [self.get_parameter(f"lin{number}.model.1.weight").flatten().double() for number in range(len(layers))]
