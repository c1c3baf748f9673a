"""What a task is. Everything else (heads, discriminators, losses, metrics, pictures) follows from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch

from collagan_dist.types import Batch

# Per-sample measurements: name to a float64 array (B, ...), NaN where a sample has nothing to measure.
SampleValues = dict[str, np.ndarray]


class Task(ABC):
    """One t of Ω: what the generator shall put out for a batch, how wrong it is, and how people read it.

    Outputs and targets are (B, channels, H, W) in [-1, 1], the range of the generator's tanh.
    """

    name: str
    channels: int
    needs_labels = False
    needs_points = False
    sums_channels = False
    """loss.l2: sum_channels, for tasks whose reconstruction loss is the L2 below."""

    @abstractmethod
    def target(self, batch: Batch) -> torch.Tensor:
        """y_t."""

    def reconstruction(self, output: torch.Tensor, batch: Batch, target: torch.Tensor) -> torch.Tensor:
        """L^t_rec of eq. 2, a scalar: L2 averaged over all elements unless the task says otherwise.

        With `sums_channels` it is averaged over samples and pixels and summed over channels: `channels` times as large.
        """
        error = (output - target).square().mean()
        return error * self.channels if self.sums_channels else error

    def discriminator_input(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """What the discriminator judges; G^t(x, z) itself unless the task says otherwise."""
        return output

    @abstractmethod
    def measure(self, output: torch.Tensor, batch: Batch) -> SampleValues:
        """Per-sample numbers from which `summarize` makes metrics."""

    @abstractmethod
    def summarize(self, rows: SampleValues) -> tuple[dict[str, Any], dict[str, Any]]:
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
    return float(values.mean()), standard_error(values)


def standard_error_of_columns(values_NK: np.ndarray) -> float:
    """Standard error, over samples, of the plain mean of the columns' means; NaN stands for no value.

    Columns of one sample are not independent, and not all have a value: so by linearisation, from what each sample
    adds to the result.
    """
    has = ~np.isnan(values_NK)
    count = has.sum(0)
    values_NK, has, count = values_NK[:, count > 0], has[:, count > 0], count[count > 0]
    if not len(count):
        return float("nan")
    means = np.where(has, values_NK, 0).sum(0) / count
    return standard_error((np.where(has, values_NK - means, 0) * len(values_NK) / count).mean(1))


def standard_error(values_N: np.ndarray) -> float:
    """Standard error of a mean of whole values; NaN for fewer than two."""
    return float(values_N.std(ddof=1) / np.sqrt(len(values_N))) if len(values_N) > 1 else float("nan")
