"""SSIM (Wang 2004) of a batch of 8-bit pictures on their device, equal to scikit-image's to 1e-9."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F

_K1, _K2, _RANGE = 0.01, 0.03, 255.0
_CACHED_PIXELS = 2**13


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


def ssim_in_hole(
    truth_BHW3: torch.Tensor, other_BHW3: torch.Tensor, hole_BHW: torch.Tensor, window: Window
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (B,) the mean SSIM over all pixels whose window lies inside the picture, and (B,) over those of the hole (NaN without one)."""
    size, radius = truth_BHW3.shape[1:3], window.radius
    # Where no pixel of a window differs SSIM is 1, so only a box around the hole has to be computed: nothing else of a completed
    # picture differs. All boxes of a batch have one size, and lie inside the picture: at its border they are reflected as it is.
    differs = (truth_BHW3 != other_BHW3).any(3) | hole_BHW
    tops, lefts, height, width = _boxes(differs, 2 * radius)
    rows = tops[:, None] + torch.arange(height, device=tops.device)
    columns = lefts[:, None] + torch.arange(width, device=lefts.device)
    at = torch.arange(len(rows), device=rows.device)[:, None, None], rows[:, :, None], columns[:, None, :]
    truth, other, hole, differs = truth_BHW3[at], other_BHW3[at], hole_BHW[at], differs[at]
    # A CPU computes few at a time, whose intermediate results stay in its cache.
    few = max(1, _CACHED_PIXELS // (height * width)) if truth.device.type == "cpu" else len(truth)
    found = torch.cat([_map(t, o, window) for t, o in zip(truth.split(few), other.split(few), strict=True)])
    # Near a side of the box that is no side of the picture, the box was reflected where the picture goes on; there SSIM is 1.
    touched = F.max_pool2d(differs[:, None].float(), 2 * radius + 1, 1, radius)[:, 0] > 0
    lost = torch.where(touched, 1 - found, 0.0)
    inside = _interior(rows, size[0], radius)[:, :, None] & _interior(columns, size[1], radius)[:, None, :]
    pixels = (size[0] - 2 * radius) * (size[1] - 2 * radius)
    mean = 1 - torch.where(inside, lost, 0.0).sum((1, 2)) / pixels
    in_hole = 1 - torch.where(hole, lost, 0.0).sum((1, 2)) / hole.sum((1, 2))
    return mean, in_hole


def _boxes(hole_BHW: torch.Tensor, margin: int) -> tuple[torch.Tensor, torch.Tensor, int, int]:
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


def _interior(at_BN: torch.Tensor, size: int, radius: int) -> torch.Tensor:
    return (at_BN >= radius) & (at_BN < size - radius)


def _map(truth_BHW3: torch.Tensor, other_BHW3: torch.Tensor, window: Window) -> torch.Tensor:
    """Return (B, H, W), the mean over channels of SSIM at each pixel."""
    x, y = (t.permute(0, 3, 1, 2).double() for t in (truth_BHW3, other_BHW3))
    ux, uy, uxx, uyy, uxy = _local_mean(torch.stack([x, y, x * x, y * y, x * y]), window)
    vx, vy, vxy = (window.factor * (a - b) for a, b in ((uxx, ux * ux), (uyy, uy * uy), (uxy, ux * uy)))
    c1, c2 = (_K1 * _RANGE) ** 2, (_K2 * _RANGE) ** 2
    above = (2 * ux * uy + c1) * (2 * vxy + c2)
    return (above / ((ux * ux + uy * uy + c1) * (vx + vy + c2))).mean(1)


def _local_mean(x: torch.Tensor, window: Window) -> torch.Tensor:
    """Return the weighted mean around each pixel of (N, B, C, H, W); beyond the border pictures are reflected, the outer pixels twice."""
    if x.device.type == "cpu":
        return torch.stack([_local_mean_on_cpu(one, window) for one in x.unbind(1)], dim=1)
    return _local_mean_by_torch(x, window)


def _local_mean_by_torch(x: torch.Tensor, window: Window) -> torch.Tensor:
    for axis in (-1, -2):
        size = x.shape[axis]
        padded = x.index_select(axis, _reflected(size, window.radius, x.device))
        x = sum(w * padded.narrow(axis, k, size) for k, w in enumerate(window.weights))  # type: ignore[assignment]
    return x


def _local_mean_on_cpu(x_NCHW: torch.Tensor, window: Window) -> torch.Tensor:
    # By OpenCV, in a twentieth of torch's time on a CPU.
    count, channels, height, width = x_NCHW.shape
    weights, last = np.array(window.weights), x_NCHW.reshape(-1, height, width).permute(1, 2, 0).contiguous().numpy()
    found = cv2.sepFilter2D(last, -1, weights, weights, borderType=cv2.BORDER_REFLECT)
    return torch.from_numpy(found).permute(2, 0, 1).reshape(count, channels, height, width)


@cache
def _reflected(size: int, radius: int, device: torch.device) -> torch.Tensor:
    at = torch.arange(-radius, size + radius, device=device).remainder(2 * size)
    return torch.minimum(at, 2 * size - 1 - at)
