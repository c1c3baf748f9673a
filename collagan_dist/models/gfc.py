"""GFC: Generative Face Completion (Li 2017), trained in three stages (model.gfc.stages).

Stage 1 has the reconstruction loss only, stage 2 adds the local discriminator, stage 3 the global one and the parsing loss.
"""

# Loss weights. GFC's code (gradstack.m) adds gradients at G's output: 1 of the L1, 300 of each discriminator, 0.05 of the parser.
# Its L1 and its cross-entropy are sums over an image's elements, divided by the batch; its adversarial losses are means over the
# batch. With N = 3 * 128^2 elements that is
#
#     N mean|y - G| + 300 (A_local + A_global) + 0.05 * 128^2 mean(CE).
#
# Adam does not see a common factor, so our means have these weights divided by N: 1, 300 / N = 0.0061 and 0.05 / 3 = 0.0167. The
# preset keeps them at every image size.
#
# Inputs. The L1 is over the whole image. The local discriminator sees the block of the hole. The global one and the parser see
# the composite with the original, so their gradients reach G inside the hole only. GFC's code also adds the global
# discriminator's gradient at pixels outside the hole, which G did not generate; here it is left out.

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from collagan_dist import shell
from collagan_dist.config.tree import Config
from collagan_dist.data.loading.holes import BLOCK_SHARE
from collagan_dist.distributed.engine import Engine
from collagan_dist.errors import ConfigError
from collagan_dist.losses import accuracy, discriminator_term, generator_term
from collagan_dist.models.gfc_networks import GFCDiscriminator, GFCGenerator
from collagan_dist.models.networks import Networks
from collagan_dist.models.parsing import ParsingNetwork, load_parsing_network
from collagan_dist.models.predictor import TaskTensors
from collagan_dist.models.step import Losses, MicroBatch, Step
from collagan_dist.runs.layout import RunPaths
from collagan_dist.tasks.base import Task
from collagan_dist.tasks.inpainting import composite
from collagan_dist.types import Batch

# In the order in which the stages add them. Each has its own optimizer, since stage 2 trains the local one only.
DISCRIMINATORS = ("local", "whole")
_EPSILON = 1e-4  # added to probabilities before their logarithm


class GFCDiscriminators(nn.Module):
    """The local and the global discriminator, and the parser."""

    def __init__(self, size: int, width: int, parser: ParsingNetwork | None) -> None:
        super().__init__()
        self.local = SeparatePasses(GFCDiscriminator(int(size * BLOCK_SHARE), width))
        self.whole = SeparatePasses(GFCDiscriminator(size, width))
        # Here, so that a checkpoint holds the parser too: a run goes on after the parser's own run is deleted.
        self.parser = parser


class SeparatePasses(nn.Module):
    """A discriminator called with several batches at once: DDP allows one forward pass for each backward pass."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.network(image_B3HW) for image_B3HW in images)


def generator(config: Config, tasks: dict[str, Task]) -> nn.Module:
    """Return GFC's generator."""
    return GFCGenerator(config.data.image_size, config.model.widths.generator, 3 + config.model.mask_channel)


def discriminators(config: Config, tasks: dict[str, Task]) -> nn.Module:
    """Return GFC's discriminators and parser. Raises ConfigError if holes are not blocks, or the parser is missing."""
    if config.hole.kind != "block":
        raise ConfigError(
            f"hole.kind: GFC's local discriminator needs a rectangle, not {config.hole.kind}; set hole.kind=block "
            "(a trained GFC completes holes of any kind)"
        )
    width = config.model.widths.discriminator
    networks = GFCDiscriminators(config.data.image_size, width, None)
    if config.model.gfc.parsing:  # after the others: loading it draws random numbers
        networks.parser = load_parser(config.model.gfc.parser)
    return networks


def load_parser(folder: str | None) -> ParsingNetwork:
    """Return the parsing network of a finished run folder or an exported folder. Raises ConfigError, CheckpointError."""
    if folder is None:
        raise ConfigError(
            "model.gfc.parser: GFC's parsing loss needs a parsing network; train one with `collagan train parser --data SHARDS "
            "--out runs/parser` and give --set model.gfc.parser=runs/parser, or do without by --set model.gfc.parsing=0"
        )
    if RunPaths(Path(folder)).requeue.exists():  # a run that stopped before its end
        raise ConfigError(
            f"model.gfc.parser: {folder} was stopped before its end; finish it first: "
            f"{shell.collagan('train', Path(folder) / 'config.yaml', '--out', Path(folder))}"
        )
    return load_parsing_network(Path(folder), "model.gfc.parser: ")[0]


def log_probabilities(scores_BCHW: torch.Tensor) -> torch.Tensor:
    """Return the log-probabilities of the classes from a parsing network's scores."""
    # The network regresses one-hot maps in -1 and 1 by L2. So (score + 1) / 2 estimates a class's probability, and a softmax of
    # the scores would not.
    shares = (scores_BCHW + 1) / 2 + _EPSILON
    return shares.log() - shares.sum(1, keepdim=True).log()


class GFCStep(Step):
    """One update of the active discriminators and one of G. The stages say which are active; schedule.adv_from is not used."""

    def __init__(
        self, config: Config, engine: Engine, tasks: dict[str, Task], networks: Networks, total_steps: int
    ) -> None:
        super().__init__(config, engine, tasks, networks, total_steps)
        parser, size = networks.discriminators.parser, config.data.image_size
        resizes = isinstance(parser, ParsingNetwork) and parser.config.data.image_size != size
        if resizes and config.deterministic and engine.device.type == "cuda":
            raise ConfigError(
                f"deterministic: the parsing network of model.gfc.parser sees other pictures than {size}x{size}, and torch cannot resize on a "
                f"GPU with gradients that repeat; train a parser with data.image_size={size}, or set deterministic to false"
            )

    def loss_weights(self) -> dict[str, float]:
        adv, _ = self.weights["inpainting"]
        own = {"loss/inpainting/adv_local": adv, "loss/inpainting/parsing": self.config.model.gfc.parsing}
        return super().loss_weights() | own

    def stage(self, step: int) -> int:
        """Return 1 for reconstruction alone, 2 for that and the local discriminator, 3 for all losses."""
        return 1 + sum(step >= share * self.total_steps for share in self.config.model.gfc.stages)

    def discriminator_loss(self, micro_batch: MicroBatch, outputs: TaskTensors, stage: int) -> Losses:
        """Return one loss for each of the active discriminators."""
        batch = micro_batch.batch
        reals = {"local": block_of(batch.image_B3HW, batch.hole_B1HW), "whole": batch.image_B3HW}
        fakes = self._fakes(batch, outputs)
        losses, values = [], {}
        for name in DISCRIMINATORS[: stage - 1]:
            real, fake = self.networks.discriminator_learners[name](reals[name], fakes[name])
            losses.append(discriminator_term(real, fake))
            values[f"loss/inpainting/disc{_SUFFIX[name]}"] = losses[-1].detach()
            values[f"accuracy/inpainting{_SUFFIX[name]}"] = accuracy(real, fake)
        return losses, values

    def generator_loss(self, micro_batch: MicroBatch, outputs: TaskTensors, stage: int) -> Losses:
        """Return G's loss: L1, the adversarial terms and, in stage 3, the parsing loss of the completed picture."""
        batch = micro_batch.batch
        fakes = self._fakes(batch, outputs)
        adv_weight, rec_weight = self.weights["inpainting"]
        rec = self.reconstruction(outputs, batch, self.targets(micro_batch))["inpainting"]
        loss, values = rec_weight * rec, {"loss/inpainting/rec": rec.detach()}
        for name in DISCRIMINATORS[: stage - 1]:
            (logits,) = self.networks.discriminator_learners[name].call_module(fakes[name])
            adv = generator_term(logits, self.config.loss.adv)
            loss, values[f"loss/inpainting/adv{_SUFFIX[name]}"] = loss + adv_weight * adv, adv.detach()
        if stage == 3 and self.networks.discriminators.parser is not None:
            parsing = self._parsing(batch, fakes["whole"])
            loss = loss + self.config.model.gfc.parsing * parsing
            values["loss/inpainting/parsing"] = parsing.detach()
        return [loss], values | {"loss/total": loss.detach()}

    def _fakes(self, batch: Batch, outputs: TaskTensors) -> TaskTensors:
        """Return the input of each discriminator: G's output in the block that was the hole, and the whole composite."""
        output = outputs["inpainting"]
        return {"local": block_of(output, batch.hole_B1HW), "whole": composite(output, batch)}

    def _parsing(self, batch: Batch, completed: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy, over all pixels, of the parser on the completed image against its classes for the original."""
        parser = self.networks.discriminators.parser
        with self.engine.autocast():
            with torch.no_grad():
                classes = log_probabilities(parser(batch.image_B3HW)).argmax(1, keepdim=True)  # type: ignore[operator]
            found = log_probabilities(parser(completed))  # type: ignore[operator]
        return -found.gather(1, classes).mean()  # torch's nll_loss does not take channels_last on a CPU


# The end of each discriminator's keys in metrics.jsonl.
_SUFFIX = {"local": "_local", "whole": ""}


def block_of(image_BCHW: torch.Tensor, hole_B1HW: torch.Tensor) -> torch.Tensor:
    """Return (B, C, S/2, S/2): the block of each image where its hole is."""
    # By indices from the hole itself: its top left corner differs from sample to sample and is not kept elsewhere.
    at = torch.arange(int(image_BCHW.shape[-1] * BLOCK_SHARE), device=image_BCHW.device)
    rows = hole_B1HW[:, 0].any(2).int().argmax(1)[:, None] + at
    columns = hole_B1HW[:, 0].any(1).int().argmax(1)[:, None] + at
    samples = torch.arange(len(image_BCHW), device=image_BCHW.device)
    blocks = image_BCHW.permute(0, 2, 3, 1)[samples[:, None, None], rows[:, :, None], columns[:, None, :]]
    return blocks.permute(0, 3, 1, 2)
