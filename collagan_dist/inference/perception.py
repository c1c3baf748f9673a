"""Fréchet and perceptual distances of completions in the features of a given network (evaluate.features)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from collagan_dist.config.tree import Config
from collagan_dist.models.feature_network import FeatureNetwork
from collagan_dist.models.features import open_features
from collagan_dist.runs.feature_weights import weights_hash
from collagan_dist.setup import Setup
from collagan_dist.tasks.base import SampleValues, Task
from collagan_dist.tasks.inpainting import Inpainting, composite, to_bytes
from collagan_dist.types import Batch, image_from_pixels

# Rows of each sample that no result stores: they are as many as the features, twice, and only the distance of sets needs them.
_COMPLETED, _TRUE = "features_completed", "features_true"
UNSTORED = (_COMPLETED, _TRUE)


class PerceivedInpainting(Inpainting):
    """The task inpainting, measured in a network's features besides."""

    def __init__(self, config: Config, network: FeatureNetwork) -> None:
        super().__init__(config)
        self.network = network

    def measure(self, output: torch.Tensor, batch: Batch) -> SampleValues:
        """Return PSNR and SSIM, and of the same 8-bit composite the perceptual distance and the pooled features."""
        images = [_as_seen(composite(output, batch)), _as_seen(batch.image_B3HW)]
        distances, pooled = [], []
        for done, truth in zip(*images, strict=True):
            one, other = self.network.features(done), self.network.features(truth)
            distances.append(self.network.distance(one, other))
            pooled.append(torch.stack([one.pooled, other.pooled]).cpu().numpy())
        # float32 holds them exactly: they are a float32 network's. (Other ranks are sent them.)
        completed, true = np.stack(pooled, axis=1)
        rows = {"perceptual": np.array(distances), _COMPLETED: completed, _TRUE: true}
        return super().measure(output, batch) | rows

    def summarize(self, rows: SampleValues) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the metrics and standard errors, with the Fréchet distance where there are two samples or more."""
        found, errors = super().summarize({name: values for name, values in rows.items() if name not in UNSTORED})
        if len(rows[_TRUE]) > 1:
            found["frechet"] = frechet_distance(rows[_COMPLETED], rows[_TRUE])
        return found, errors


def measured_tasks(setup: Setup) -> dict[str, Task]:
    """Return the tasks as an evaluation measures them. Raises ConfigError and CheckpointError for a wrong evaluate.features."""
    features = setup.config.evaluate.features
    if features is None or "inpainting" not in setup.tasks:
        return setup.tasks
    network = _open(features, weights_hash(features), str(setup.device))
    return {**setup.tasks, "inpainting": PerceivedInpainting(setup.config, network)}


def describe_features(tasks: dict[str, Task]) -> dict[str, Any]:
    """Return what a result says of the network: its kind and the dimension of its pooled features; {} without one."""
    task = tasks.get("inpainting")
    if not isinstance(task, PerceivedInpainting):
        return {}
    return {"features": {"network": task.network.kind, "dimension": task.network.dimension}}


@lru_cache(maxsize=1)  # evaluations in training have one network
def _open(path: str, weights: str, device: str) -> FeatureNetwork:
    return open_features(Path(path)).to(device)


def _as_seen(image_B3HW: torch.Tensor) -> torch.Tensor:
    """Return what a user gets of images, 8 bits a channel, in [-1, 1]."""
    return image_from_pixels(torch.from_numpy(to_bytes(image_B3HW)).to(image_B3HW.device))


def frechet_distance(one_ND: np.ndarray, other_MD: np.ndarray) -> float:
    """Return the squared Fréchet distance between Gaussians with the means and covariances of two sets of features.

    It is |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½) (Heusel 2017), with covariances over N - 1. Both sets have two rows or more.
    """
    (mean_one, root_one), (mean_other, root_other) = _moments(one_ND), _moments(other_MD)
    # With C = RᵀR, tr (C1 C2)^½ is the sum of the singular values of R1 R2ᵀ. It loses no digits where covariances are singular, as
    # they are for fewer samples than dimensions; a matrix square root does.
    cross = np.linalg.svd(root_one @ root_other.T, compute_uv=False).sum()
    spread = (root_one**2).sum() + (root_other**2).sum() - 2 * cross
    return float(((mean_one - mean_other) ** 2).sum() + max(0.0, spread))


def _moments(features_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (D,) and R of the covariance RᵀR."""
    values = features_ND.astype(np.float64)
    mean = values.mean(0)
    root: np.ndarray = np.linalg.qr((values - mean) / np.sqrt(len(values) - 1), mode="r")  # type: ignore[assignment]
    return mean, root
