"""Holes of section 4.1 and what fills them: 1 inside the hole, the complement of the paper's M."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
import torch

from collagan_dist import counter

BLOCK_SHARE = 0.5  # side of the block, as a share of the picture's: 64 of 128
NOISE_SHARE = 0.8
PATTERN_SHARE = (0.2, 0.3)  # accepted windows of the pattern
_PATTERN_SIZE = 2048
_PATTERN_SEED = 1604  # one pattern for all runs, so that models are compared on the same holes
_TRIES = 64


def block(keys_B2: torch.Tensor, size: int) -> torch.Tensor:
    """One square of half the side, uniform over all whole positions inside the picture."""
    side = int(size * BLOCK_SHARE)
    corner = (counter.uniform_tensor(keys_B2, 2, stream=1) * (size - side + 1)).floor()
    at = torch.arange(size, device=keys_B2.device)
    rows = (at >= corner[:, :1]) & (at < corner[:, :1] + side)
    columns = (at >= corner[:, 1:]) & (at < corner[:, 1:] + side)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def pattern(keys_B2: torch.Tensor, size: int) -> torch.Tensor:
    """A window of the Context Encoder's random pattern that covers 20 to 30 % of the picture."""
    whole, area = _pattern(size)
    places = (counter.uniform_tensor(keys_B2, 2 * _TRIES, stream=1).cpu().numpy() * (len(whole) - size + 1)).astype(
        np.int64
    )
    top, left = places[:, :_TRIES], places[:, _TRIES:]
    share = (
        area[top + size, left + size] - area[top, left + size] - area[top + size, left] + area[top, left]
    ) / size**2
    accepted = (share >= PATTERN_SHARE[0]) & (share <= PATTERN_SHARE[1])
    # The first accepted window; where none of the tries is (about 1 in 10^9), the one nearest to a quarter.
    best = np.where(accepted.any(1), accepted.argmax(1), abs(share - 0.25).argmin(1))
    rows = np.arange(len(best))
    windows = [whole[t : t + size, w : w + size] for t, w in zip(top[rows, best], left[rows, best], strict=True)]
    return torch.from_numpy(np.stack(windows)[:, None]).to(keys_B2.device)


def noise(keys_B2: torch.Tensor, size: int) -> torch.Tensor:
    """Every pixel on its own with probability 80 %."""
    return (counter.uniform_tensor(keys_B2, size * size, stream=1) < NOISE_SHARE).view(-1, 1, size, size)


def nothing(keys_B2: torch.Tensor, size: int) -> torch.Tensor:
    return torch.zeros(len(keys_B2), 1, size, size, dtype=torch.bool, device=keys_B2.device)


HOLES: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {
    "block": block,
    "pattern": pattern,
    "noise": noise,
    "none": nothing,
}


def occlude(image_B3HW: torch.Tensor, hole_B1HW: torch.Tensor, kind: str, keys_B2: torch.Tensor) -> torch.Tensor:
    """x of eq. 1: block, noise and given holes are filled with U(-1, 1), a pattern with zeros."""
    if kind == "none":
        return image_B3HW
    if kind == "pattern":
        return image_B3HW.masked_fill(hole_B1HW, 0.0)
    fill = counter.uniform_tensor(keys_B2, image_B3HW[0].numel(), stream=2).mul_(2).sub_(1).view(image_B3HW.shape)
    return torch.where(hole_B1HW, fill, image_B3HW)


@lru_cache(maxsize=4)
def _pattern(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The pattern and its summed-area table: low-resolution uniform noise, bicubic, below a threshold of 0.25.

    The resolution is 0.06 at 128 pixels, as the Context Encoder's, and keeps its proportion to the picture.
    """
    coarse = int(_PATTERN_SIZE * 0.06 * 128 / size)
    key = counter.key64(_PATTERN_SEED, size)
    low = counter.uniforms(key, coarse * coarse).reshape(coarse, coarse)
    whole = cv2.resize(low, (_PATTERN_SIZE, _PATTERN_SIZE), interpolation=cv2.INTER_CUBIC) < 0.25
    return whole, np.pad(whole.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
