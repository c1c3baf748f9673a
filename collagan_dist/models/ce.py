"""CE: Context Encoder (Pathak 2016), as its code trains it for random regions (`train_random.lua`).

An encoder-decoder without skip connections completes the whole image. The discriminator sees the image alone.
"""

# CE's code sets the convolutions' biases to zero before every step, so here they have none. It fills holes with the mean colour,
# which is the preset's hole.fill.

from __future__ import annotations

import itertools

import torch
from torch import nn

from collagan_dist.config.tree import Config
from collagan_dist.errors import ConfigError
from collagan_dist.models.generator import initialize
from collagan_dist.models.layers import Unconditional, doubling_widths
from collagan_dist.models.predictor import TaskTensors
from collagan_dist.models.step import Scalars, Step, StepResult
from collagan_dist.tasks.base import Task
from collagan_dist.types import Batch, as_float32

_INNERMOST = 4  # pixels of the encoder's last layer, which the bottleneck reduces to one


class ContextEncoder(nn.Module):
    """Maps a filled image (B, 3, S, S) to a completed one in (-1, 1), through a bottleneck of 1x1."""

    def __init__(self, size: int, width: int, bottleneck: int, channels: int = 3) -> None:
        super().__init__()
        widths = doubling_widths(size, _INNERMOST, 8 * width, width)
        outwards = widths[::-1]
        self.encoder = nn.Sequential(
            *_downsampling([channels, *widths]),
            nn.Conv2d(widths[-1], bottleneck, _INNERMOST, bias=False),
            nn.BatchNorm2d(bottleneck),
            nn.LeakyReLU(0.2),
        )
        self.decoder = nn.Sequential(
            *_normalized(nn.ConvTranspose2d(bottleneck, outwards[0], _INNERMOST, bias=False), outwards[0]),
            *itertools.chain.from_iterable(
                _normalized(nn.ConvTranspose2d(cin, cout, 4, 2, 1, bias=False), cout)
                for cin, cout in itertools.pairwise(outwards)
            ),
            nn.ConvTranspose2d(outwards[-1], 3, 4, 2, 1, bias=False),
        )
        self.apply(initialize)

    def forward(self, input_B3HW: torch.Tensor, keys_B2: torch.Tensor) -> torch.Tensor:
        """Complete the image; `keys_B2` is ignored, since there is no noise."""
        return torch.tanh(as_float32(self.decoder(self.encoder(input_B3HW))))


class CEDiscriminator(nn.Module):
    """Maps an image (B, 3, S, S) to one logit (B, 1, 1, 1); positive is real."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        widths = doubling_widths(size, _INNERMOST, 8 * width, width)
        self.layers = nn.Sequential(*_downsampling([3, *widths]), nn.Conv2d(widths[-1], 1, _INNERMOST, bias=False))
        self.apply(initialize)

    def forward(self, image_B3HW: torch.Tensor) -> torch.Tensor:
        return self.layers(image_B3HW)


class CEStep(Step):
    """The paper's step with CE's reconstruction loss: L2 over the whole image."""

    def __call__(self, batch: Batch, step: int) -> StepResult:
        # order.check_batch refuses this for trainings; callers of the step alone meet it here.
        # At the bottleneck a sample is one pixel: the variance of a single one is 0, and all of it would become the bias.
        if len(batch.image_B3HW) < 2:
            raise ConfigError(
                "schedule.batch: CE normalizes its bottleneck of one pixel over the samples of a rank, and one sample has no spread; "
                "give every rank at least 2"
            )
        return super().__call__(batch, step)

    def reconstruction(self, outputs: TaskTensors, batch: Batch, targets: TaskTensors) -> Scalars:
        # Instead of the loss of the task, which is L1 and may count the hole alone.
        return {name: (output - targets[name]).square().mean() for name, output in outputs.items()}


def generator(config: Config, tasks: dict[str, Task]) -> nn.Module:
    """Return CE's generator."""
    model = config.model
    return ContextEncoder(config.data.image_size, model.widths.generator, model.ce.bottleneck, 3 + model.mask_channel)


def discriminators(config: Config, tasks: dict[str, Task]) -> nn.Module:
    """Return CE's discriminator."""
    return Unconditional(CEDiscriminator(config.data.image_size, config.model.widths.discriminator))


def _downsampling(channels: list[int]) -> list[nn.Module]:
    """Return 4x4 convolutions of stride 2 from one number of channels to the next; all but the first are normalized."""
    layers: list[nn.Module] = [nn.Conv2d(channels[0], channels[1], 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for cin, cout in itertools.pairwise(channels[1:]):
        layers += [nn.Conv2d(cin, cout, 4, 2, 1, bias=False), nn.BatchNorm2d(cout), nn.LeakyReLU(0.2)]
    return layers


def _normalized(convolution: nn.Module, channels: int) -> tuple[nn.Module, ...]:
    return convolution, nn.BatchNorm2d(channels), nn.ReLU()
