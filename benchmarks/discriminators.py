"""The three discriminators one after the other, as they are trained, against one network of grouped convolutions with the same weights.

The discriminators' phase of a step of `stable` on one CPU thread: 8 real and 8 generated sets of outputs at 128x128, full width, bf16,
forward and backward; CPU-seconds, alternating. Operations are those that a GPU would be asked for, counted by the rule of tests/virtual/kernels.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from benchmarks import alternate, save
from collagan_dist.models.discriminator import Discriminators
from collagan_dist.models.layers import BatchNorm, in_autocast
from tests.virtual.kernels import Counting, Kernels

CHANNELS, WIDTH, SIZE, SHARE, PARTS = {"inpainting": 3, "segmentation": 11, "landmarks": 5}, 64, 128, 8, 2
MOST = 3 + max(CHANNELS.values())


class Grouped(nn.Module):
    """All discriminators as one: each layer is one convolution of as many groups. Inputs are padded with zeros to the widest."""

    def __init__(self, single: Discriminators) -> None:
        super().__init__()
        networks = [network.layers for network in single.of.values()]
        self.layers = nn.ModuleList(_joined(layers) for layers in zip(*networks, strict=True))

    def forward(self, input_B3HW: torch.Tensor, *sets: dict[str, torch.Tensor]) -> torch.Tensor:
        x = torch.cat([self._stacked(input_B3HW, images) for images in sets])
        for layer in self.layers:
            x = layer(x, len(sets)) if isinstance(layer, BatchNorm) else layer(x)
        return x.float()

    def _stacked(self, input_B3HW: torch.Tensor, images: dict[str, torch.Tensor]) -> torch.Tensor:
        x = in_autocast(input_B3HW)
        padded = []
        for image in images.values():
            empty = x.new_zeros(len(x), MOST - 3 - image.shape[1], *x.shape[2:])
            padded += [x, in_autocast(image), empty]
        return torch.cat(padded, dim=1)


def _joined(layers: tuple[nn.Module, ...]) -> nn.Module:
    first = layers[0]
    if isinstance(first, nn.Conv2d):
        cin = max(one.in_channels for one in layers)  # type: ignore[attr-defined]
        how = {"stride": first.stride, "padding": first.padding, "groups": len(layers), "bias": first.bias is not None}
        joined = nn.Conv2d(len(layers) * cin, len(layers) * first.out_channels, 4, **how)  # type: ignore[arg-type]
        joined.weight.data.zero_()
        for part, one in zip(joined.weight.data.chunk(len(layers)), layers, strict=True):
            part[:, : one.in_channels] = one.weight.data  # type: ignore[attr-defined, union-attr, operator]
        if joined.bias is not None:
            joined.bias.data = torch.cat([one.bias.data for one in layers])  # type: ignore[attr-defined, union-attr, misc]
        return joined
    if isinstance(first, BatchNorm):
        wide = BatchNorm(len(layers) * first.num_features)
        for name in ("weight", "bias"):
            getattr(wide, name).data = torch.cat([getattr(one, name).data for one in layers])
        return wide
    return first


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    single = Discriminators(CHANNELS, WIDTH).to(memory_format=torch.channels_last)
    grouped = Grouped(single).to(memory_format=torch.channels_last)
    image, *sets = (
        {name: _images(count) for name, count in ({"x": 3} if number == 0 else CHANNELS).items()}
        for number in range(1 + PARTS)
    )
    x = image["x"]
    apart = torch.cat([torch.cat(list(logits.values()), dim=1) for logits in single(x, *sets)])
    difference = (apart - grouped(x, *sets)).abs().max().item()

    def phase(network: nn.Module) -> Callable[[], int]:
        def run() -> int:
            network.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                found = network(x, *sets)
            logits = [found] if isinstance(found, torch.Tensor) else [one for part in found for one in part.values()]
            sum(one.square().mean() for one in logits).backward()  # type: ignore[union-attr]
            return SHARE

        return run

    ways = {"one after the other": phase(single), "grouped": phase(grouped)}
    rates = alternate(ways, rounds=5)
    operations = {}
    for name, run in ways.items():
        with Counting(kernels := Kernels()):
            run()
        operations[name] = kernels.operations.total()
    save(
        __file__,
        {
            "largest difference of logits, fp32": difference,
            "samples_per_cpu_s": rates,
            "ratio": round(rates["grouped"] / rates["one after the other"], 2),
            "operations": operations,
        },
    )


def _images(channels: int) -> torch.Tensor:
    return torch.rand(SHARE, channels, SIZE, SIZE).mul_(2).sub_(1).contiguous(memory_format=torch.channels_last)


if __name__ == "__main__":
    main()
