"""Face completion, task i: L1 reconstruction, and the inpainting-concentrated scheme of section 3.3."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from collagan_dist.config.tree import Config
from collagan_dist.tasks.base import SampleValues, Task, mean_and_error
from collagan_dist.tasks.ssim import WINDOWS, cut_boxes, ssim_in_hole
from collagan_dist.types import Batch

PSNR_CAP = 100.0  # dB, for an image without any error


class Inpainting(Task):
    name = "inpainting"
    channels = 3

    def __init__(self, config: Config) -> None:
        # Without holes x is y, and the scheme would leave no loss at all.
        self.concentrated = config.model.concentrated and config.hole.kind != "none"
        # A sum over channels is their number times the mean.
        self.channel_factor = self.channels if config.loss.l1 == "sum_channels" else 1
        self.over_hole = config.loss.inpainting_over == "hole"
        self.window = WINDOWS[config.evaluate.ssim]

    def target(self, batch: Batch) -> torch.Tensor:
        return batch.image_B3HW

    def reconstruction(self, output: torch.Tensor, batch: Batch, target: torch.Tensor) -> torch.Tensor:
        """Return L1; in the concentrated scheme that of eq. 6, where errors outside the hole do not count."""
        return self._mean_error(output, batch, target) * self.channel_factor

    def _mean_error(self, output: torch.Tensor, batch: Batch, target: torch.Tensor) -> torch.Tensor:
        error = (output - target).abs()
        if not self.concentrated:
            return error.mean()
        error = error * batch.hole_B1HW
        if not self.over_hole:
            return error.mean()
        # Per sample, not per batch: so ranks whose holes have other sizes weigh the same.
        pixels = batch.hole_B1HW.sum(dim=(1, 2, 3)).clamp(min=1) * self.channels
        return (error.sum(dim=(1, 2, 3)) / pixels).mean()

    def discriminator_input(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        return composite(output, batch) if self.concentrated else output

    def measure(self, output: torch.Tensor, batch: Batch) -> SampleValues:
        """Return PSNR and SSIM of the 8-bit composite, over the whole image and over the hole."""
        # What a user gets: 8 bits a channel, and the original outside the hole.
        truth, done = pixels(batch.image_B3HW), pixels(composite(output, batch))
        boxes = cut_boxes(truth, done, batch.hole_B1HW[:, 0], self.window)
        # Sums of integers, so they are exact. Of three summands by name: several times as fast as over so short an axis.
        red, green, blue = (boxes.truth_Bhw3.int() - boxes.other_Bhw3.int()).square_().unbind(3)
        squares, hole = red + green + blue, boxes.hole_Bhw
        values = {
            "psnr": psnr(squares.sum((1, 2)), torch.full_like(squares[:, 0, 0], 3 * batch.hole_B1HW[0].numel())),
            "psnr_hole": psnr((squares * hole).sum((1, 2)), 3 * hole.sum((1, 2))),
        }
        values["ssim"], values["ssim_hole"] = ssim_in_hole(boxes, self.window)
        return {name: value.cpu().numpy() for name, value in values.items()}

    def summarize(self, rows: SampleValues) -> tuple[dict[str, Any], dict[str, Any]]:
        pairs = {name: mean_and_error(values) for name, values in rows.items()}
        return {name: mean for name, (mean, _) in pairs.items()}, {name: error for name, (_, error) in pairs.items()}

    def baselines(self, batch: Batch, statistics: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"mean_colour": _mean_colour(batch), "biharmonic": _biharmonic(batch)}

    def picture(self, output: torch.Tensor, batch: Batch) -> tuple[str, torch.Tensor]:
        return "completed", composite(output, batch)


def composite(output: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return ŷ of eq. 5: the output inside the hole, exactly x outside it."""
    return torch.where(batch.hole_B1HW, output, batch.input_B3HW)


def pixels(image_B3HW: torch.Tensor) -> torch.Tensor:
    """Return images in [-1, 1] as (B, H, W, 3) uint8, on their device."""
    scaled = image_B3HW.detach().float().add(1).mul_(127.5).round_().clamp_(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1)


def to_bytes(image_B3HW: torch.Tensor) -> np.ndarray:
    """Return images in [-1, 1] as (B, H, W, 3) uint8."""
    return pixels(image_B3HW).cpu().numpy()


def psnr(squares: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Return the PSNR in dB of 8-bit values from the sum of `count` squared errors; NaN where there are none."""
    return (10 * torch.log10(255.0**2 * count.double() / squares)).clamp(max=PSNR_CAP)


def _mean_colour(batch: Batch) -> torch.Tensor:
    """Return images of the mean colour of each image's visible pixels."""
    seen = ~batch.hole_B1HW
    total = (batch.image_B3HW * seen).sum(dim=(2, 3), keepdim=True)
    return (total / seen.sum(dim=(2, 3), keepdim=True).clamp(min=1)).expand_as(batch.image_B3HW)


def _biharmonic(batch: Batch) -> torch.Tensor:
    from collagan_dist.tasks.biharmonic import fill  # scipy's solvers are imported only here

    filled = fill(batch.image_B3HW.cpu().double().numpy(), batch.hole_B1HW[:, 0].cpu().numpy())
    return torch.from_numpy(filled).to(batch.image_B3HW)
