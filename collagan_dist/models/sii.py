"""SII: Semantic Image Inpainting (Yeh 2017): a DCGAN in training, a search for its z at test.

The DCGAN never sees a hole. At test, gradient descent finds the z whose G(z) is like the visible pixels near the hole, and like a
face for D.
"""

# The DCGAN is that of the two programs that SII builds on (carpedm20, bamos): 5x5 convolutions, z from U(-1, 1), two updates of G for
# each update of D. Both programs keep z in [-1, 1] in the search, and take -log D(G(z)) as the prior loss, where the paper prints
# log(1 - D(G(z))).

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from collagan_dist import rng
from collagan_dist.config.tree import Config, Search
from collagan_dist.distributed.update import Update
from collagan_dist.losses import generator_term
from collagan_dist.models.generator import initialize
from collagan_dist.models.layers import Unconditional, doubling_widths
from collagan_dist.models.predictor import Predictor, TaskTensors
from collagan_dist.models.step import Losses, MicroBatch, Step
from collagan_dist.tasks.base import Task
from collagan_dist.types import Batch, as_float32

_INNERMOST = 4  # pixels of the layer next to z
_Z_STREAM = 20  # of random numbers; G's dropout has 10 to 12


class SIIGenerator(nn.Module):
    """Maps z (B, length) to an image (B, 3, S, S) in (-1, 1)."""

    def __init__(self, length: int, size: int, width: int) -> None:
        super().__init__()
        widths = doubling_widths(size, _INNERMOST, 8 * width, width)[::-1]
        self.length, self.widest = length, widths[0]
        self.project = nn.Linear(length, widths[0] * _INNERMOST**2)
        layers: list[nn.Module] = [nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for cin, cout in itertools.pairwise(widths):
            layers += [nn.ConvTranspose2d(cin, cout, 5, 2, 2, 1), nn.BatchNorm2d(cout), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], 3, 5, 2, 2, 1))
        self.apply(initialize)
        nn.init.normal_(self.project.weight, 0.0, 0.02)
        nn.init.zeros_(self.project.bias)

    def forward(self, input_B3HW: torch.Tensor, keys_B2: torch.Tensor) -> torch.Tensor:
        """Return an image for each key; the input is ignored."""
        return self.decode(noise(keys_B2, self.length))

    def decode(self, z_BN: torch.Tensor) -> torch.Tensor:
        """Return the images of given z."""
        x = self.project(z_BN).view(-1, self.widest, _INNERMOST, _INNERMOST)
        return torch.tanh(as_float32(self.layers(x)))


class SIIDiscriminator(nn.Module):
    """Maps an image (B, 3, S, S) to one logit (B, 1); positive is real."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        widths = doubling_widths(size, _INNERMOST, 8 * width, width)
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 5, 2, 2), nn.LeakyReLU(0.2)]
        for cin, cout in itertools.pairwise(widths):
            layers += [nn.Conv2d(cin, cout, 5, 2, 2), nn.BatchNorm2d(cout), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.apply(initialize)
        self.output = nn.Linear(widths[-1] * _INNERMOST**2, 1)
        nn.init.normal_(self.output.weight, 0.0, 0.02)
        nn.init.zeros_(self.output.bias)

    def forward(self, image_B3HW: torch.Tensor) -> torch.Tensor:
        return self.output(self.layers(image_B3HW).flatten(1))


def noise(keys_B2: torch.Tensor, length: int) -> torch.Tensor:
    """Return z (B, length) from U(-1, 1), a function of the samples' keys."""
    return rng.uniform_tensor(keys_B2, length, _Z_STREAM).mul_(2).sub_(1)


def generator(config: Config, tasks: dict[str, Task]) -> nn.Module:
    """Return the DCGAN's generator."""
    return SIIGenerator(config.model.sii.z, config.data.image_size, config.model.widths.generator)


def discriminators(config: Config, tasks: dict[str, Task]) -> nn.Module:
    """Return the DCGAN's discriminator."""
    return Unconditional(SIIDiscriminator(config.data.image_size, config.model.widths.discriminator))


class SIIStep(Step):
    """One update of D, then model.sii.generator_updates of G, all from the same z.

    G has an adversarial loss only, so schedule.adv_from is not used.
    """

    def updates(self, micro_batches: list[MicroBatch], stage: int) -> Iterator[Update]:
        yield self.update_discriminators(micro_batches, stage)
        for _ in range(self.config.model.sii.generator_updates):
            yield self.update_generator(micro_batches, stage)

    def stage(self, step: int) -> int:
        return 2

    def generator_loss(self, micro_batch: MicroBatch, outputs: TaskTensors, stage: int) -> Losses:
        learner = self.networks.discriminator_learner
        (logits,) = learner.call_module(micro_batch.batch.input_B3HW, outputs)
        adv = generator_term(logits["inpainting"], self.config.loss.adv)
        loss = self.weights["inpainting"][0] * adv
        return [loss], {"loss/inpainting/adv": adv.detach(), "loss/total": loss.detach()}


class SIIPredictor(Predictor):
    """Completes each image by G(z) of the best z, at the image's own size."""

    needs_discriminators = True

    def __call__(self, batch: Batch) -> dict[str, torch.Tensor]:
        assert self.discriminators is not None
        size = batch.input_B3HW.shape[-1]
        # The search needs gradients, whatever mode the caller is in. It is always in float32, so that evaluation's precision does
        # not decide where it ends.
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(self.engine.device.type, enabled=False):
            seen, hole = resize_visible(batch.input_B3HW.clone(), batch.hole_B1HW.clone(), self.config.data.image_size)
            z = noise(batch.keys_B2.clone(), self.config.model.sii.z)
            z = search(self.generator, self.discriminators, seen, hole, z, self.config.evaluate.search)
        with _eval_mode(self.generator), torch.inference_mode():
            output = self.generator.decode(z)  # type: ignore[operator]
            if output.shape[-1] != size:
                output = F.interpolate(output, (size, size), mode="bilinear", antialias=True)
        return {"inpainting": output}


def search(
    generator: nn.Module,
    discriminators: nn.Module,
    image_B3HW: torch.Tensor,
    hole_B1HW: torch.Tensor,
    z_BN: torch.Tensor,
    settings: Search,
) -> torch.Tensor:
    """Return the z that Adam reaches from `z_BN`, for each image on its own. Both networks are unchanged afterwards."""
    # Equal only up to rounding for another batch size: kernels sum in another order, and a search amplifies it. Alone or in a
    # batch of 4, outputs of a trained DCGAN differed by 0.0014 on average after 200 steps.
    weights = neighbour_weights(hole_B1HW, settings.window)
    z = z_BN.detach().clone().requires_grad_(True)
    adam = torch.optim.Adam([z], lr=settings.lr)
    with _eval_mode(generator, discriminators):
        for _ in range(settings.steps):
            loss = losses(generator, discriminators, image_B3HW, weights, z, settings.prior)
            # The sum: images do not share a loss, so the gradient of each z is that of its own image.
            (z.grad,) = torch.autograd.grad(loss.sum(), [z])
            adam.step()
            with torch.no_grad():
                z.clamp_(-1, 1)
    return z.detach()


@contextmanager
def _eval_mode(*networks: nn.Module) -> Iterator[None]:
    """Use the running statistics of batch normalization inside, so that no image depends on the others of its batch."""
    modes = [network.training for network in networks]
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for network, mode in zip(networks, modes, strict=True):
            network.train(mode)


def losses(
    generator: nn.Module,
    discriminators: nn.Module,
    image_B3HW: torch.Tensor,
    weights_B1HW: torch.Tensor,
    z_BN: torch.Tensor,
    prior: float,
) -> torch.Tensor:
    """Return (B,) what the search minimises: the weighted L1, summed over an image's elements, and the prior loss -log D(G(z))."""
    output = generator.decode(z_BN)  # type: ignore[operator]
    (logits,) = discriminators(image_B3HW, {"inpainting": output})
    context = (weights_B1HW * (output - image_B3HW).abs()).sum(dim=(1, 2, 3))
    return context + prior * F.softplus(-logits["inpainting"]).flatten()


def neighbour_weights(hole_B1HW: torch.Tensor, window: int) -> torch.Tensor:
    """Return W of Yeh's context loss: 0 in the hole, elsewhere the share of missing pixels in the window around a pixel."""
    height, width = hole_B1HW.shape[-2:]
    share = F.avg_pool2d(hole_B1HW.float(), window, 1, window // 2, count_include_pad=False)
    return share[..., :height, :width] * ~hole_B1HW


def resize_visible(input_B3HW: torch.Tensor, hole_B1HW: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return image and hole at `size` pixels. A pixel is the mean of the visible ones it covers, missing if all of them are."""
    if input_B3HW.shape[-1] == size:
        return input_B3HW, hole_B1HW
    visible = (~hole_B1HW).float()
    share = F.adaptive_avg_pool2d(visible, size)
    mean = F.adaptive_avg_pool2d(input_B3HW * visible, size) / share.clamp(min=1e-6)
    return mean, share == 0
