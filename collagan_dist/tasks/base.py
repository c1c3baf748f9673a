"""The interface of a task, from which its output channels, discriminator, losses, metrics and pictures follow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from collagan_dist.types import Batch

# Measurements by name: float64 arrays (B, ...), NaN where a sample has nothing to measure.
SampleValues = dict[str, np.ndarray]


_LEAST_SQUARE = 1e-12


class Task(ABC):
    """One task t of Ω: its target, its losses, its metrics and its picture.

    Outputs and targets are (B, channels, H, W) in [-1, 1], the range of the generator's tanh.
    """

    name: str
    channels: int
    # Annotations that the loader must provide; a data set without them is refused.
    needs_labels = False
    needs_points = False
    l2 = "mean"
    """loss.l2, for tasks whose reconstruction loss is the L2 below."""

    @abstractmethod
    def target(self, batch: Batch) -> torch.Tensor:
        """Return y_t of a batch."""

    def reconstruction(self, output: torch.Tensor, batch: Batch, target: torch.Tensor) -> torch.Tensor:
        """Return L^t_rec of eq. 2, a scalar: by default L2 averaged over all elements.

        `sum_channels` averages over samples and pixels and sums over channels: `channels` times as large. `norm` is the mean over
        samples of ||output - target||_2, which is not squared.
        """
        # The paper does not say over what its L2 is averaged, nor whether it is squared; loss.l2 chooses.
        if self.l2 == "norm":
            squares = (output - target).square().flatten(1).sum(1)
            # A norm has no gradient at 0; below the limit it is 0.
            return squares.clamp(min=_LEAST_SQUARE).sqrt().mean()
        mean = F.mse_loss(output, target)
        return mean * self.channels if self.l2 == "sum_channels" else mean

    def discriminator_input(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return what the discriminator sees of an output: by default G^t(x, z) itself."""
        return output

    @abstractmethod
    def measure(self, output: torch.Tensor, batch: Batch) -> SampleValues:
        """Return the measurements of each sample, from which `summarize` computes metrics."""

    @abstractmethod
    def summarize(self, rows: SampleValues) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the metrics over all samples and their standard errors, with the keys of metrics.json."""

    def baselines(self, batch: Batch, statistics: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Return outputs of trivial predictors by name, measured like the model's own. May be slow."""
        return {}

    @abstractmethod
    def picture(self, output: torch.Tensor, batch: Batch) -> tuple[str, torch.Tensor]:
        """Return a column title and images (B, 3, H, W) in [-1, 1] for picture grids."""


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Return the mean and its standard error over the samples that have a value; (nan, nan) if none has."""
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    return float(values.mean()), standard_error(values)


def standard_error_of_columns(values_NK: np.ndarray) -> float:
    """Return the standard error, over samples, of the plain mean of the columns' means; NaN stands for no value."""
    # The columns of a sample are not independent, and not all have a value. So by linearization: the spread of what each sample
    # adds to the result.
    has = ~np.isnan(values_NK)
    count = has.sum(0)
    values_NK, has, count = values_NK[:, count > 0], has[:, count > 0], count[count > 0]
    if not len(count):
        return float("nan")
    means = np.where(has, values_NK, 0).sum(0) / count
    return standard_error((np.where(has, values_NK - means, 0) * len(values_NK) / count).mean(1))


def standard_error(values_N: np.ndarray) -> float:
    """Return the standard error of the mean of values without NaN; NaN for fewer than two."""
    return float(values_N.std(ddof=1) / np.sqrt(len(values_N))) if len(values_N) > 1 else float("nan")
