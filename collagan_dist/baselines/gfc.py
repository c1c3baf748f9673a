r"""GFC: Generative Face Completion (Li 2017), in its three stages: reconstruction; and a local discriminator; and a global one
with a parsing loss (model.gfc.stages).

**Weights.** Its code (`gradstack.m`) adds gradients at G's output: 1 of the L1, 300 of each discriminator, 0.05 of the parser. Its L1
and its cross-entropy are *sums* over a picture's elements, divided by the batch; its adversarial losses are means over the
batch. With N = 3 * 128^2 elements that is

    N mean|y - G| + 300 (A_local + A_global) + 0.05 * 128^2 mean(CE),

so for our means, divided by N (Adam does not see a common factor): 1, 300 / N = 0.0061 and 0.05 / 3 = 0.0167. These are the
preset's weights, kept at every size.

**What is judged.** The L1 is over the whole picture. The local discriminator sees the block that was the hole, the global one and the
parser see the composite with the original, so their gradients reach G inside the hole only. (In their code the global
discriminator's gradient outside the hole, of pixels that G did not make, is added to G's output, too; not here.) The cross-entropy
is over all pixels, against the classes that the parser gives the original.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from collagan_dist import objective
from collagan_dist.baselines.gfc_networks import Discriminator, Generator
from collagan_dist.config import Config, model_label
from collagan_dist.contract import Batch
from collagan_dist.data.holes import BLOCK_SHARE
from collagan_dist.errors import CollaganError, ConfigError
from collagan_dist.tasks import build_tasks
from collagan_dist.tasks.base import Task
from collagan_dist.tasks.inpainting import composite
from collagan_dist.training.step import Step, Values, frozen

_SMALLEST = 1e-4  # probability below which a class is not told from impossible


class Parser(nn.Module):
    """A trained model of ours with segmentation, frozen: it is in eval mode always, and gradients pass through it.

    It regresses one-hot maps to ±1 by L2, so (score + 1) / 2 estimates a class's probability; it is no logit.
    """

    def __init__(self, network: nn.Module, size: int, classes: slice) -> None:
        super().__init__()
        self.network, self.size, self.classes = network, size, classes
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Parser:
        return super().train(False)

    def forward(self, picture_B3HW: torch.Tensor) -> torch.Tensor:
        """(B, 11, s, s) log-probabilities of the classes at the parser's own size, to which the picture is resized."""
        if picture_B3HW.shape[-1] != self.size:
            picture_B3HW = F.interpolate(picture_B3HW, (self.size, self.size), mode="bilinear", antialias=True)
        scores = self.network(picture_B3HW, None)[:, self.classes].float()
        shares = (scores + 1) / 2 + _SMALLEST
        return shares.log() - shares.sum(1, keepdim=True).log()


class Discriminators(nn.Module):
    """The local and the global discriminator, and the parser, which checkpoints keep with them."""

    def __init__(self, size: int, width: int, parser: Parser | None) -> None:
        super().__init__()
        self.local = Discriminator(int(size * BLOCK_SHARE), width)
        self.whole = Discriminator(size, width)
        self.parser = parser


class Judge(nn.Module):
    """A discriminator over several sets of pictures in one call, as an engine wraps it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.network(p) for p in pictures)


def generator(config: Config, tasks: dict[str, Task]) -> nn.Module:
    return Generator(config.data.image_size, config.model.widths.generator)


def discriminators(config: Config, tasks: dict[str, Task]) -> nn.Module:
    """What GFC trains against. Raises ConfigError when holes are no blocks or the parser is missing."""
    if config.hole.kind != "block":
        raise ConfigError(
            f"hole.kind: GFC's local discriminator needs a rectangle, not {config.hole.kind}; set hole.kind=block "
            "(evaluate and complete take any hole)"
        )
    parser = load_parser(config) if config.model.gfc.parsing else None
    return Discriminators(config.data.image_size, config.model.widths.discriminator, parser)
