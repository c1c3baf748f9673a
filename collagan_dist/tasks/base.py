"""What a task is. Everything else (heads, discriminators, losses, metrics, pictures) follows from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch

from collagan_dist.contract import Batch

# Per-sample measurements: name to a float64 array (B, ...), NaN where a sample has nothing to measure.
Rows = dict[str, np.ndarray]


class Task(ABC):
    """One t of Ω: what the generator shall put out for a batch, how wrong it is, and how people read it.

    Outputs and targets are (B, channels, H, W) in [-1, 1], the range of the generator's tanh.
    """

    name: str
    channels: int
    needs_labels = False
    needs_points = False

    @abstractmethod
    def target(self, batch: Batch) -> torch.Tensor:
        """y_t."""

    def reconstruction(self, output: torch.Tensor, batch: Batch, target: torch.Tensor) -> torch.Tensor:
        """L^t_rec of eq. 2, a scalar: L2 averaged over all elements unless the task says otherwise."""
        return (output - target).square().mean()

    def shown(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """What the discriminator judges; G^t(x, z) itself unless the task says otherwise."""
        return output

    @abstractmethod
    def measure(self, output: torch.Tensor, batch: Batch) -> Rows:
        """Per-sample numbers from which `summarize` makes metrics."""

    @abstractmethod
    def summarize(self, rows: Rows) -> tuple[dict[str, Any], dict[str, Any]]:
        """(metrics, their standard errors) over all samples, with the keys of metrics.json."""

    def baselines(self, batch: Batch, statistics: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Outputs of trivial predictors by name, to be measured like the model's own. May be slow."""
        return {}

    @abstractmethod
    def picture(self, output: torch.Tensor, batch: Batch) -> tuple[str, torch.Tensor]:
        """(column title, (B, 3, H, W) in [-1, 1]) for picture grids."""


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error over the samples that have a value; (nan, nan) when none has."""
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    spread = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return float(values.mean()), float(spread)
