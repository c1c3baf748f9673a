"""Widths of networks, which tests compare with the papers' numbers."""

from torch import nn


def widths(network: nn.Module, stride: int) -> list[int]:
    """Output channels of a network's convolutions of a stride, in order."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    return [m.out_channels for m in network.modules() if isinstance(m, kinds) and m.stride == (stride, stride)]
