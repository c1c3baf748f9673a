"""The Inception network of the Fréchet inception distance (Heusel 2017): TensorFlow's of 2015-12-05, by its published weights."""

# Written out here because the packages that have it (pytorch-fid, torch-fidelity, and torchmetrics through it) import torchvision,
# and one of them unpickles its file. The network never changes, and names of tensors are those of pytorch-fid's file.

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from collagan_dist.models.feature_network import FeatureNetwork

_SIZE = 299  # pixels
# A branch is a chain of steps: "avg" and "max" pool 3x3 windows with stride 1, "max2" with stride 2; a convolution is (name, channels,
# kernel, stride); a list holds convolutions beside one another, whose outputs are concatenated.
Step = Any
Branches = list[list[Step]]


def _mixed_5(pooled: int) -> Branches:
    return [
        [("branch1x1", 64, 1)],
        [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)],
        ["avg", ("branch_pool", pooled, 1)],
    ]


_MIXED_6A: Branches = [
    [("branch3x3", 384, 3, 2)],
    [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2)],
    ["max2"],
]


def _mixed_6(width: int) -> Branches:
    double = [
        ("_1", width, 1),
        ("_2", width, (7, 1)),
        ("_3", width, (1, 7)),
        ("_4", width, (7, 1)),
        ("_5", 192, (1, 7)),
    ]
    return [
        [("branch1x1", 192, 1)],
        [("branch7x7_1", width, 1), ("branch7x7_2", width, (1, 7)), ("branch7x7_3", 192, (7, 1))],
        [(f"branch7x7dbl{name}", channels, kernel) for name, channels, kernel in double],
        ["avg", ("branch_pool", 192, 1)],
    ]


_MIXED_7A: Branches = [
    [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)],
    [("branch7x7x3_1", 192, 1), ("branch7x7x3_2", 192, (1, 7)), ("branch7x7x3_3", 192, (7, 1)), ("branch7x7x3_4", 192, 3, 2)],
    ["max2"],
]  # fmt: skip


def _mixed_7(pool: str) -> Branches:
    return [
        [("branch1x1", 320, 1)],
        [("branch3x3_1", 384, 1), [("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1))]],
        [("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3),
         [("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))]],
        [pool, ("branch_pool", 192, 1)],
    ]  # fmt: skip


# The last block pools by the maximum: an oddity of the published network, which the published distances have.
_BLOCKS: dict[str, Branches] = {
    "Mixed_5b": _mixed_5(32), "Mixed_5c": _mixed_5(64), "Mixed_5d": _mixed_5(64), "Mixed_6a": _MIXED_6A,
    "Mixed_6b": _mixed_6(128), "Mixed_6c": _mixed_6(160), "Mixed_6d": _mixed_6(160), "Mixed_6e": _mixed_6(192),
    "Mixed_7a": _MIXED_7A, "Mixed_7b": _mixed_7("avg"), "Mixed_7c": _mixed_7("max"),
}  # fmt: skip


class Inception(FeatureNetwork):
    """Features: the 2048 pooled ones of the Fréchet inception distance; layers: the ends of the four stages, unweighted."""

    kind, dimension = "inception", 2048

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3, padding=0)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = _Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3, padding=0)
        width = 192
        for name, branches in _BLOCKS.items():
            block = _Mixed(width, branches)
            self.add_module(name, block)
            width = block.width

    def activations(self, image_B3HW: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """As FeatureNetwork; images are resized to 299x299 pixels, bilinear, as pytorch-fid does."""
        x = F.interpolate(image_B3HW, (_SIZE, _SIZE), mode="bilinear", align_corners=False)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        layers = [F.max_pool2d(x, 3, 2)]
        layers.append(F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(layers[0])), 3, 2))
        x = layers[1]
        for name in _BLOCKS:
            x = self.get_submodule(name)(x)
            if name in ("Mixed_6e", "Mixed_7c"):
                layers.append(x)
        return x.mean(dim=(2, 3)), layers


class _Conv(nn.Module):
    """A convolution without bias, batch normalization and ReLU. Padding keeps the size at stride 1; at stride 2 there is none."""

    def __init__(
        self, cin: int, cout: int, kernel: int | tuple[int, int], stride: int = 1, padding: int | None = None
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padded = (height // 2, width // 2) if padding is None and stride == 1 else 0
        self.conv = nn.Conv2d(cin, cout, (height, width), stride, padded, bias=False)
        self.bn = nn.BatchNorm2d(cout, eps=0.001)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.bn(self.conv(x)))


class _Mixed(nn.Module):
    """Branches whose outputs are concatenated; `width` is the number of their channels."""

    def __init__(self, cin: int, branches: Branches) -> None:
        super().__init__()
        self.branches, self.width = branches, 0
        for branch in branches:
            width = cin
            for step in branch:
                convolutions = [] if isinstance(step, str) else step if isinstance(step, list) else [step]
                for name, *arguments in convolutions:
                    self.add_module(name, _Conv(width, *arguments))
                width = sum(channels for _, channels, *_ in convolutions) or width
            self.width += width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self._branch(x, branch) for branch in self.branches], dim=1)

    def _branch(self, x: torch.Tensor, branch: list[Step]) -> torch.Tensor:
        for step in branch:
            if isinstance(step, str):
                x = _POOLS[step](x)
            elif isinstance(step, list):
                x = torch.cat([self.get_submodule(name)(x) for name, *_ in step], dim=1)
            else:
                x = self.get_submodule(step[0])(x)
        return x


_POOLS = {
    # Zeros of the padding do not count, as in TensorFlow.
    "avg": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "max": lambda x: F.max_pool2d(x, 3, 1, 1),
    "max2": lambda x: F.max_pool2d(x, 3, 2),
}
