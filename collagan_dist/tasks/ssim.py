"""SSIM (Wang 2004) of a batch of 8-bit pictures on their device, equal to scikit-image's to 1e-9."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import cv2
import numpy as np
import torch

_K1, _K2, _RANGE = 0.01, 0.03, 255.0

_Values = TypeVar("_Values", torch.Tensor, np.ndarray)


@dataclass(frozen=True)
class Window:
    """The weights of a local mean along one axis, of odd length; `sample` takes the unbiased covariance of a uniform one."""

    weights: tuple[float, ...]
    sample: bool

    @property
    def radius(self) -> int:
        return len(self.weights) // 2

    @property
    def factor(self) -> float:
        """What the covariance is multiplied by."""
        count = len(self.weights) ** 2
        return count / (count - 1) if self.sample else 1.0


def _gaussian(sigma: float, radius: int) -> tuple[float, ...]:
    at = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-(at**2) / (2 * sigma**2))
    return tuple((weights / weights.sum()).tolist())


# By evaluate.ssim: scikit-image's default, and Wang 2004 (11 pixels: 3.5 σ on each side).
WINDOWS = {"uniform": Window((1 / 7,) * 7, sample=True), "gaussian": Window(_gaussian(1.5, 5), sample=False)}


@dataclass(frozen=True)
class Boxes:
    """Boxes of (h, w) pixels that contain all pixels at which two pictures of a batch differ, and its holes, with a margin.

    `size` is that of the pictures, `tops_B` and `lefts_B` are the places of the boxes. They lie inside the pictures.
    """

    truth_Bhw3: torch.Tensor
    other_Bhw3: torch.Tensor
    hole_Bhw: torch.Tensor
    tops_B: torch.Tensor
    lefts_B: torch.Tensor
    size: tuple[int, int]


def cut_boxes(truth_BHW3: torch.Tensor, other_BHW3: torch.Tensor, hole_BHW: torch.Tensor, window: Window) -> Boxes:
    """Return boxes outside of which SSIM is 1, and no pixel differs."""
    # A completed picture differs in its hole alone, so most of it has not to be looked at.
    differs = hole_BHW.clone()
    for channel in (truth_BHW3 != other_BHW3).unbind(3):
        differs |= channel
    tops, lefts, height, width = _places(differs, 2 * window.radius)
    corners = list(zip(tops.tolist(), lefts.tolist(), strict=True))
    truth, other, hole = (
        torch.stack(
            [one[top : top + height, left : left + width] for one, (top, left) in zip(values, corners, strict=True)]
        )
        for values in (truth_BHW3, other_BHW3, hole_BHW)
    )
    return Boxes(truth, other, hole, tops, lefts, (hole_BHW.shape[1], hole_BHW.shape[2]))


def ssim_in_hole(boxes: Boxes, window: Window) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (B,) the mean SSIM over all pixels whose window lies inside the picture, and (B,) over those of the hole (NaN without one)."""
    truth, other, hole, (tops, lefts) = (
        boxes.truth_Bhw3,
        boxes.other_Bhw3,
        boxes.hole_Bhw,
        (boxes.tops_B, boxes.lefts_B),
    )
    size, (height, width), radius = boxes.size, hole.shape[1:], window.radius
    # At the picture's border boxes are reflected as it is.
    found = _map_on_cpu(truth, other, window) if truth.device.type == "cpu" else _map(truth, other, window)
    rows, columns = _computed(tops, height, size[0], radius), _computed(lefts, width, size[1], radius)
    lost = torch.where(rows[:, :, None] & columns[:, None, :], 1 - found, 0.0)
    rows, columns = _interior(tops, height, size[0], radius), _interior(lefts, width, size[1], radius)
    inside = rows[:, :, None] & columns[:, None, :]
    pixels = (size[0] - 2 * radius) * (size[1] - 2 * radius)
    mean = 1 - torch.where(inside, lost, 0.0).sum((1, 2)) / pixels
    in_hole = 1 - torch.where(hole, lost, 0.0).sum((1, 2)) / hole.sum((1, 2))
    return mean, in_hole


def _places(hole_BHW: torch.Tensor, margin: int) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    """Return (B,) tops and lefts, height and width of boxes that contain each hole with a margin, as far as the picture goes."""
    starts, lengths = [], []
    for axis in (1, 2):
        full = hole_BHW.shape[axis]
        any_in = hole_BHW.any(3 - axis).to(torch.int8)
        first = any_in.argmax(1)
        last = full - 1 - any_in.flip(1).argmax(1)  # without a hole: all of it, which is right, too
        first, end = (first - margin).clamp(min=0), (last + 1 + margin).clamp(max=full)
        length = int((end - first).max())
        starts.append(torch.minimum(first, full - length + 0 * first))
        lengths.append(length)
    return starts[0], starts[1], lengths[0], lengths[1]


def _computed(starts_B: torch.Tensor, length: int, size: int, radius: int) -> torch.Tensor:
    """Return (B, length) where boxes along one axis have the picture's SSIM; elsewhere no pixel differs."""
    # Near an end of the box that is no end of the picture, the box was reflected where the picture goes on.
    at = torch.arange(length, device=starts_B.device)
    first, last = starts_B[:, None] == 0, starts_B[:, None] + length == size
    return ((at >= radius) | first) & ((at < length - radius) | last)


def _interior(starts_B: torch.Tensor, length: int, size: int, radius: int) -> torch.Tensor:
    """Return (B, length) where windows of boxes along one axis lie inside the picture."""
    at = starts_B[:, None] + torch.arange(length, device=starts_B.device)
    return (at >= radius) & (at < size - radius)


def _map(truth_BHW3: torch.Tensor, other_BHW3: torch.Tensor, window: Window) -> torch.Tensor:
    """Return (B, H, W), the mean over channels of SSIM at each pixel."""
    x, y = (t.permute(0, 3, 1, 2).double() for t in (truth_BHW3, other_BHW3))
    return _similarity(window, *_local_mean(torch.stack([x, y, x * x, y * y, x * y]), window)).mean(1)


def _map_on_cpu(truth_BHW3: torch.Tensor, other_BHW3: torch.Tensor, window: Window) -> torch.Tensor:
    """The same by OpenCV, one picture at a time, which is much faster than torch on a CPU."""
    weights, found = np.array(window.weights), []
    for pair in zip(truth_BHW3.numpy(), other_BHW3.numpy(), strict=True):
        x, y = (picture.astype(np.float64) for picture in pair)
        means = (
            cv2.sepFilter2D(values, -1, weights, weights, borderType=cv2.BORDER_REFLECT)
            for values in (x, y, x * x, y * y, x * y)
        )
        one = _similarity(window, *means)
        found.append((one[..., 0] + one[..., 1] + one[..., 2]) / 3)
    return torch.from_numpy(np.stack(found))


def _similarity(window: Window, ux: _Values, uy: _Values, uxx: _Values, uyy: _Values, uxy: _Values) -> _Values:
    """Return SSIM from the local means of x, y, x², y² and xy."""
    vx, vy, vxy = (window.factor * (a - b) for a, b in ((uxx, ux * ux), (uyy, uy * uy), (uxy, ux * uy)))
    c1, c2 = (_K1 * _RANGE) ** 2, (_K2 * _RANGE) ** 2
    return (2 * ux * uy + c1) * (2 * vxy + c2) / ((ux * ux + uy * uy + c1) * (vx + vy + c2))


def _local_mean(x: torch.Tensor, window: Window) -> torch.Tensor:
    """Return the weighted mean around each pixel of (..., H, W); beyond the border pictures are reflected, the outer pixels twice."""
    for axis in (-1, -2):
        size = x.shape[axis]
        padded = x.index_select(axis, _reflected(size, window.radius, x.device))
        x = sum(w * padded.narrow(axis, k, size) for k, w in enumerate(window.weights))  # type: ignore[assignment]
    return x


@cache
def _reflected(size: int, radius: int, device: torch.device) -> torch.Tensor:
    at = torch.arange(-radius, size + radius, device=device).remainder(2 * size)
    return torch.minimum(at, 2 * size - 1 - at)
