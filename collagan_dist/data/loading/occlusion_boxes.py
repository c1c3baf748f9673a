"""The holes O1 to O6 of Table 1: upright boxes over parts of the face, about 40x48 of 128 pixels (section 4.3).

The paper names the parts without numbers. Faces are not aligned, so a box follows the landmarks of its picture; where
those are unknown, its position is fixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from collagan_dist.config.tree import FIXED_POSITIONS, Box
from collagan_dist.types import LANDMARKS, POSITIONS

# Lengths are shares of u: the larger of the distances between the eyes and from the eyes to the mouth. u is 39 of 128
# pixels in photographs, and a tilted head does not change it.
_FIXED_SIZE = 128  # pixels of the picture that fixed boxes are given for
_CHIN = 0.5  # from the mouth to the chin
_HALF_FACE = 0.9  # width of half a face, from its middle

# Position: the points that its box contains, and the margins around them (above, left, below, right).
_CONTENTS: dict[str, tuple[tuple[str, ...], tuple[float, float, float, float]]] = {
    "O1": (("left_eye",), (0.5, 0.5, 0.3, 0.5)),  # more above than below: the brow
    "O2": (("right_eye",), (0.5, 0.5, 0.3, 0.5)),
    "O3": (("left_eye", "right_eye"), (0.5, 0.5, 0.3, 0.5)),
    "O4": (("left_eye", "left_mouth"), (0.35, 0.0, 0.1, 0.0)),  # their columns are set to half the face below
    "O5": (("right_eye", "right_mouth"), (0.35, 0.0, 0.1, 0.0)),
    "O6": (("left_mouth", "right_mouth", "chin"), (0.25, 0.45, 0.05, 0.45)),
}
assert set(_CONTENTS) == set(POSITIONS)


@dataclass(frozen=True)
class OcclusionBoxes:
    """The boxes of O1 to O6: around `points_BK2` (pixels of the view), or without them `fixed` (pixels of 128x128)."""

    points_BK2: torch.Tensor | None = None
    fixed: Mapping[str, Box] = field(default_factory=lambda: FIXED_POSITIONS)

    def hole(self, name: str, count: int, size: int, device: torch.device) -> torch.Tensor:
        """Return (count, 1, size, size) holes: the pixels whose centres are in the box."""
        if self.points_BK2 is None:
            top, left, height, width = self.fixed[name]
            box = torch.tensor([top, left, top + height, left + width], dtype=torch.float64, device=device)
            boxes_B4 = (box * (size / _FIXED_SIZE) - 0.5).expand(count, 4)
        else:
            boxes_B4 = box_around(name, self.points_BK2)
        at = torch.arange(size, dtype=torch.float64, device=device)
        rows = (at >= boxes_B4[:, 0:1]) & (at < boxes_B4[:, 2:3])
        columns = (at >= boxes_B4[:, 1:2]) & (at < boxes_B4[:, 3:4])
        return (rows[:, :, None] & columns[:, None, :])[:, None]


def box_around(name: str, points_BK2: torch.Tensor) -> torch.Tensor:
    """Return (B, 4) float64 top, left, bottom, right of a position in pixels of the view; it may leave the picture."""
    points = dict(zip(LANDMARKS, points_BK2.double().unbind(1), strict=True))
    eyes = (points["left_eye"] + points["right_eye"]) / 2
    mouth = (points["left_mouth"] + points["right_mouth"]) / 2
    across = torch.linalg.vector_norm(points["right_eye"] - points["left_eye"], dim=1, keepdim=True)
    down = torch.linalg.vector_norm(mouth - eyes, dim=1, keepdim=True)
    u = torch.maximum(across, down)
    # No landmark marks the chin: it is down the line from the eyes to the mouth.
    points["chin"] = mouth + _CHIN * u * (mouth - eyes) / down.clamp(min=1e-6)
    names, margins = _CONTENTS[name]
    inside = torch.stack([points[n] for n in names], dim=1)
    above, left, below, right = (m * u[:, 0] for m in margins)
    top, bottom = inside[:, :, 1].amin(1) - above, inside[:, :, 1].amax(1) + below
    middle = (eyes[:, 0] + mouth[:, 0]) / 2
    first, last = inside[:, :, 0].amin(1) - left, inside[:, :, 0].amax(1) + right
    if name == "O4":
        first, last = middle - _HALF_FACE * u[:, 0], middle
    elif name == "O5":
        first, last = middle, middle + _HALF_FACE * u[:, 0]
    return torch.stack([top, first, bottom, last], dim=1)


def hole_size(hole_B1HW: torch.Tensor) -> np.ndarray:
    """Return (B, 2) float64 height and width of each hole's bounding box in pixels; NaN without a hole."""
    extents = [hole_B1HW[:, 0].any(axis).sum(1) for axis in (2, 1)]
    size = torch.stack(extents, dim=1).double().cpu().numpy()
    return np.where(size > 0, size, np.nan)
