"""Landmark detection, task d: one Gaussian heatmap per point, learned by L2 (section 3.2, after Pfister and Payer)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from collagan_dist.config.tree import Config
from collagan_dist.tasks.base import SampleValues, Task, mean_and_error, standard_error_of_columns
from collagan_dist.types import LANDMARKS, Batch

_DOT_RADIUS = 0.02  # of a drawn point, as a share of the image's side


class Landmarks(Task):
    name = "landmarks"
    channels = len(LANDMARKS)
    needs_points = True

    def __init__(self, config: Config) -> None:
        # heatmap_sigma is in pixels at 128x128, the paper's size; evaluation may use another one.
        self.sigma = config.model.heatmap_sigma / 128  # as a share of the image's side
        self.quarter = config.evaluate.readout == "quarter"
        self.l2 = config.loss.l2

    def target(self, batch: Batch) -> torch.Tensor:
        assert batch.points_BK2 is not None
        size = batch.image_B3HW.shape[-1]
        return heatmaps(batch.points_BK2, size, self.sigma * size)

    def measure(self, output: torch.Tensor, batch: Batch) -> SampleValues:
        """Return (B, K) Euclidean distances in pixels; `landmark_error_hole` only for points inside the hole.

        Both use the configured read-out. With the quarter-pixel one, `landmark_error_argmax` is that of the plain arg-max.
        """
        assert batch.points_BK2 is not None
        truth = batch.points_BK2.double().cpu().numpy()
        plain, quarter = (np.linalg.norm(points - truth, axis=-1) for points in _read_out(output))
        distance = quarter if self.quarter else plain
        rows = {
            "landmark_error": distance,
            "landmark_error_hole": np.where(_inside(truth, batch.hole_B1HW), distance, np.nan),
        }
        if self.quarter:
            rows["landmark_error_argmax"] = plain
        return rows

    def summarize(self, rows: SampleValues) -> tuple[dict[str, Any], dict[str, Any]]:
        values: dict[str, Any] = {}
        errors: dict[str, Any] = {}
        for name, distance in rows.items():
            pairs = {point: mean_and_error(distance[:, k]) for k, point in enumerate(LANDMARKS)}
            values[name] = {p: mean for p, (mean, _) in pairs.items() if not np.isnan(mean)}
            errors[name] = {p: error for p, (_, error) in pairs.items() if not np.isnan(error)}
            if values[name]:
                # Table 3's average: the plain mean of its rows.
                values[name]["mean"] = float(np.mean(list(values[name].values())))
                errors[name]["mean"] = standard_error_of_columns(distance)
        return values, errors

    def baselines(self, batch: Batch, statistics: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Return heatmaps of the training set's mean landmarks, whatever the image shows."""
        points = torch.as_tensor(statistics["mean_points"], dtype=torch.float32, device=batch.image_B3HW.device)
        size = batch.image_B3HW.shape[-1]
        return {"mean_landmarks": heatmaps(points.expand(len(batch.image_B3HW), -1, -1), size, self.sigma * size)}

    def picture(self, output: torch.Tensor, batch: Batch) -> tuple[str, torch.Tensor]:
        points = torch.from_numpy(read_points(output, self.quarter)).to(output.device)
        return "landmarks", draw_points(batch.input_B3HW, points)


def heatmaps(points_BK2: torch.Tensor, size: int, sigma: float) -> torch.Tensor:
    """Return (B, K, size, size) Gaussians with peak 1 at each point, mapped from [0, 1] to [-1, 1]."""
    at = torch.arange(size, dtype=torch.float32, device=points_BK2.device)
    # A Gaussian is the product of its profiles along x and y, so one outer product replaces an exp for each pixel.
    profile = torch.exp(-(at - points_BK2[..., None]).square() / (2 * sigma**2))
    return (profile[:, :, 1, :, None] * profile[:, :, 0, None, :]).mul_(2).sub_(1)


def read_points(heatmap_BKHW: torch.Tensor, quarter: bool = True) -> np.ndarray:
    """Return (B, K, 2) float64 points: the largest pixel, with `quarter` moved 1/4 pixel to its larger neighbour on each axis."""
    plain, moved = _read_out(heatmap_BKHW)
    return moved if quarter else plain


def _read_out(heatmap_BKHW: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of both read-outs: the largest pixel, and that moved by a quarter."""
    maps = heatmap_BKHW.detach().float()
    height, width = maps.shape[-2:]
    flat = maps.flatten(2)
    at = flat.argmax(2)
    y, x = at // width, at % width

    def value(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        # A pixel at the edge counts as its own neighbour outside the image.
        index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
        return flat.gather(2, index[..., None])[..., 0]

    slopes = value(y, x + 1) - value(y, x - 1), value(y + 1, x) - value(y - 1, x)
    plain, moves = torch.stack([x, y], dim=-1).double(), 0.25 * torch.stack(slopes, dim=-1).sign()
    return plain.cpu().numpy(), (plain + moves).cpu().numpy()


def draw_points(image_B3HW: torch.Tensor, points_BK2: torch.Tensor) -> torch.Tensor:
    """Return the images with a light dot on each point."""
    size = image_B3HW.shape[-1]
    at = torch.arange(size, device=image_B3HW.device)
    x, y = points_BK2[..., 0, None, None], points_BK2[..., 1, None, None]
    distance = (at[None, None, None, :] - x).square() + (at[None, None, :, None] - y).square()
    radius = max(1.0, _DOT_RADIUS * size)
    dots = (distance <= radius**2).any(dim=1, keepdim=True)
    green = torch.tensor([-0.6, 1.0, -0.2], device=image_B3HW.device)[None, :, None, None]
    return torch.where(dots, green, image_B3HW.float())


def _inside(points_BK2: np.ndarray, hole_B1HW: torch.Tensor) -> np.ndarray:
    """Return (B, K) whether the pixel of each point lies in the hole; points outside the image do not."""
    hole = hole_B1HW[:, 0].cpu().numpy()
    column, row = np.rint(points_BK2[..., 0]).astype(int), np.rint(points_BK2[..., 1]).astype(int)
    within = (column >= 0) & (row >= 0) & (column < hole.shape[2]) & (row < hole.shape[1])
    b = np.arange(len(hole))[:, None]
    return within & hole[b, np.clip(row, 0, hole.shape[1] - 1), np.clip(column, 0, hole.shape[2] - 1)]
