"""Make holes (sections 4.1 and 4.3) and fill them. A hole is 1 inside, the complement of the paper's M."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from collagan_dist import rng
from collagan_dist.data.loading.occlusion_boxes import OcclusionBoxes
from collagan_dist.types import POSITIONS

BLOCK_SHARE = 0.5  # side of the block as a share of the picture's: 64 of 128
NOISE_SHARE = 0.8  # of the pixels
PATTERN_SHARE = (0.2, 0.3)  # least and largest share of the picture that a window of the pattern may cover
_PATTERN_SIZE = 2048
_PATTERN_SEED = 1604  # one pattern for all runs, so that models are compared on the same holes
_TRIES = 64
_SWEEPS = 4  # of Jacobi at each resolution: enough that no block of a coarser one is visible

# hole.fill: the paper's (zeros in a pattern, else noise), U(-1, 1), zeros, the mean colour, the surroundings continued.
Fill = Literal["paper", "noise", "zero", "mean", "smooth"]
# The Context Encoder's code puts these values into R, G and B (ImageNet's mean in another order).
MEAN_COLOUR = (117, 104, 123)


def block(keys_B2: torch.Tensor, size: int, boxes: OcclusionBoxes | None = None) -> torch.Tensor:
    """Return one square of half the side, uniform over all pixel positions inside the picture."""
    side = int(size * BLOCK_SHARE)
    corner = (rng.uniform_tensor(keys_B2, 2, stream=1) * (size - side + 1)).floor()
    at = torch.arange(size, device=keys_B2.device)
    rows = (at >= corner[:, :1]) & (at < corner[:, :1] + side)
    columns = (at >= corner[:, 1:]) & (at < corner[:, 1:] + side)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def pattern(keys_B2: torch.Tensor, size: int, boxes: OcclusionBoxes | None = None) -> torch.Tensor:
    """Return a window of the Context Encoder's random pattern that covers 20 to 30 % of the picture."""
    full, area = _pattern(size)
    uniform = rng.uniform_tensor(keys_B2, 2 * _TRIES, stream=1).cpu().numpy()
    top, left = np.split((uniform * (len(full) - size + 1)).astype(np.int64), 2, axis=1)
    below, right = top + size, left + size
    share = (area[below, right] - area[top, right] - area[below, left] + area[top, left]) / size**2
    accepted = (share >= PATTERN_SHARE[0]) & (share <= PATTERN_SHARE[1])
    # The first accepted window; where none of the tries is (about 1 in 10^9), the one nearest to a quarter.
    best = np.where(accepted.any(1), accepted.argmax(1), abs(share - 0.25).argmin(1))
    rows = np.arange(len(best))
    windows = [full[t : t + size, w : w + size] for t, w in zip(top[rows, best], left[rows, best], strict=True)]
    return torch.from_numpy(np.stack(windows)[:, None]).to(keys_B2.device)


def noise(keys_B2: torch.Tensor, size: int, boxes: OcclusionBoxes | None = None) -> torch.Tensor:
    """Return holes of single pixels, each with probability 80 %."""
    return (rng.uniform_tensor(keys_B2, size * size, stream=1) < NOISE_SHARE).view(-1, 1, size, size)


def no_hole(keys_B2: torch.Tensor, size: int, boxes: OcclusionBoxes | None = None) -> torch.Tensor:
    return torch.zeros(len(keys_B2), 1, size, size, dtype=torch.bool, device=keys_B2.device)


def position(name: str, keys_B2: torch.Tensor, size: int, boxes: OcclusionBoxes | None = None) -> torch.Tensor:
    """Return O1 to O6 of Table 1, by default in their fixed boxes."""
    return (boxes or OcclusionBoxes()).hole(name, len(keys_B2), size, keys_B2.device)


# Kinds that are made on the CPU, wherever the keys are: from keys there, nobody waits.
ON_CPU = frozenset({"pattern"})

# Functions from keys, size and boxes (which only positions use) to (B, 1, size, size) holes, by kind.
HOLES: dict[str, Callable[..., torch.Tensor]] = {
    "block": block,
    "pattern": pattern,
    "noise": noise,
    "none": no_hole,
    **{name: partial(position, name) for name in POSITIONS},
}


def occlude(
    image_B3HW: torch.Tensor, hole_B1HW: torch.Tensor, kind: str, keys_B2: torch.Tensor, fill: Fill = "paper"
) -> torch.Tensor:
    """Return x of eq. 1. The paper fills a pattern with zeros and every other hole with U(-1, 1)."""
    if kind == "none":
        return image_B3HW
    if fill == "zero" or (fill == "paper" and kind == "pattern"):
        return image_B3HW.masked_fill(hole_B1HW, 0.0)
    if fill == "mean":
        return torch.where(hole_B1HW, _mean_colour(image_B3HW.dtype, image_B3HW.device)[:, None, None], image_B3HW)
    if fill == "smooth":
        return continue_smoothly(image_B3HW, hole_B1HW)
    noise = rng.uniform_tensor(keys_B2, image_B3HW[0].numel(), stream=2).mul_(2).sub_(1).view(image_B3HW.shape)
    return torch.where(hole_B1HW, noise, image_B3HW)


@cache
def _mean_colour(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    # A quotient, unlike types.image_from_pixels, whose last bit differs. Kept: making it on a device waits for the device.
    return torch.tensor(MEAN_COLOUR, dtype=dtype, device=device) / 127.5 - 1


def continue_smoothly(image_B3HW: torch.Tensor, hole_B1HW: torch.Tensor) -> torch.Tensor:
    """Return the images with their surroundings continued into the holes, about as harmonic functions.

    Every value in a hole is a weighted mean of visible ones; without any visible pixel it is 0.
    """
    # From coarse to fine (cascadic multigrid): Jacobi alone takes a number of sweeps that grows with the hole's area.
    # Products with masks, which take half the time of torch.where and masked_fill: these broadcast slowly.
    inside = hole_B1HW.to(image_B3HW.dtype)
    known = image_B3HW * (1 - inside)
    if image_B3HW.shape[-1] == 1:
        return known
    filled = continue_smoothly(*_halved(known, 1 - inside))
    height, width = image_B3HW.shape[-2:]
    start = filled.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., :height, :width]
    x = start * inside + known
    for _ in range(_SWEEPS):
        x = _mean_of_neighbours(x).mul_(inside).add_(known)
    return x


def _halved(known_B3HW: torch.Tensor, seen_B1HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images and holes of half the size: means of the visible of four pixels, a hole where there is none."""
    odd = (0, known_B3HW.shape[-1] % 2, 0, known_B3HW.shape[-2] % 2)
    known, seen = F.pad(known_B3HW, odd), F.pad(seen_B1HW, odd)
    total, count = (
        t[..., ::2, ::2] + t[..., 1::2, ::2] + t[..., ::2, 1::2] + t[..., 1::2, 1::2] for t in (known, seen)
    )
    return total / count.clamp(min=1), count == 0


def _mean_of_neighbours(x_B3HW: torch.Tensor) -> torch.Tensor:
    """Return the means of the four neighbours of each pixel; at the picture's border a pixel is its own neighbour."""
    # Sums of slices, whose order is fixed: a sample's values do not depend on the batch that it is in.
    padded = F.pad(x_B3HW, (1, 1, 1, 1), mode="replicate")
    total = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]
    return total.add_(padded[..., 1:-1, :-2]).add_(padded[..., 1:-1, 2:]).div_(4)


@lru_cache(maxsize=4)
def _pattern(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pattern and its summed-area table: uniform noise of low resolution, bicubic, below 0.25."""
    # The Context Encoder's resolution is 0.06 for pictures of 128 pixels; here it keeps its proportion to the picture.
    coarse = int(_PATTERN_SIZE * 0.06 * 128 / size)
    key = rng.key64(_PATTERN_SEED, size)
    low = rng.uniforms(key, coarse * coarse).reshape(coarse, coarse)
    full = cv2.resize(low, (_PATTERN_SIZE, _PATTERN_SIZE), interpolation=cv2.INTER_CUBIC) < 0.25
    # The table gives the area of any window in four look-ups.
    return full, np.pad(full.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
