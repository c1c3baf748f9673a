"""Face parsing, task s: one channel per class, learned by L2 against -1 and 1 (section 3.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from collagan_dist.config.tree import Config
from collagan_dist.tasks.base import SampleValues, Task, mean_and_error, standard_error, standard_error_of_columns
from collagan_dist.types import CLASSES, SCORED_CLASSES, Batch

# The colour of each class in pictures, in the order of CLASSES.
PALETTE = (
    (24, 24, 32), (236, 188, 150), (148, 84, 40), (196, 124, 60), (52, 120, 220), (90, 180, 250),
    (240, 130, 90), (220, 60, 90), (250, 250, 240), (170, 30, 60), (90, 60, 120)
)  # fmt: skip


class Segmentation(Task):
    name = "segmentation"
    channels = len(CLASSES)
    needs_labels = True

    def __init__(self, config: Config) -> None:
        self.l2 = config.loss.l2

    def target(self, batch: Batch) -> torch.Tensor:
        assert batch.label_BHW is not None
        classes = torch.arange(self.channels, dtype=batch.label_BHW.dtype, device=batch.label_BHW.device)
        is_class = batch.label_BHW[:, None] == classes[:, None, None]
        one = torch.ones((), dtype=batch.image_B3HW.dtype, device=is_class.device)
        return torch.where(is_class, one, -one)

    def measure(self, output: torch.Tensor, batch: Batch) -> SampleValues:
        """Return (B, C, 3) pixel counts per class (in both, predicted, true), for the whole image and for the hole."""
        assert batch.label_BHW is not None
        # Counts, not ratios: Dice pooled over samples is a ratio of sums.
        found, truth = read_labels(output), batch.label_BHW
        outside, inside = _counts(found, truth, batch.hole_B1HW[:, 0])
        return {"dice": outside + inside, "dice_hole": inside}

    def summarize(self, rows: SampleValues) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return Dice pooled over all samples (`dice`, `dice_hole`) and averaged over images (`dice_per_image`)."""
        scored = [CLASSES.index(name) for name in SCORED_CLASSES]
        values: dict[str, Any] = {}
        errors: dict[str, Any] = {}
        for name, counts in rows.items():
            residual = _residuals(counts[:, scored])
            values[name] = _named(dice(counts.sum(0))[scored])
            errors[name] = _named(np.array([standard_error(residual[:, c]) for c in range(len(scored))]))
            if "mean" in errors[name]:  # classes of one picture are not independent
                errors[name]["mean"] = standard_error(residual[:, ~np.isnan(residual).any(0)].mean(1))
        per_image = dice(rows["dice"])[:, scored]
        pairs = [mean_and_error(per_image[:, c]) for c in range(len(scored))]
        values["dice_per_image"] = _named(np.array([p[0] for p in pairs]))
        errors["dice_per_image"] = _named(np.array([p[1] for p in pairs]))
        if "mean" in errors["dice_per_image"]:
            errors["dice_per_image"]["mean"] = standard_error_of_columns(per_image)
        return values, errors

    def baselines(self, batch: Batch, statistics: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Return the training set's most frequent class of each pixel, whatever the image shows."""
        label_HW = torch.as_tensor(statistics["mean_labels"], device=batch.image_B3HW.device)
        one_hot = torch.nn.functional.one_hot(label_HW, self.channels).permute(2, 0, 1).float()
        return {"mean_labels": one_hot.expand(len(batch.image_B3HW), -1, -1, -1)}

    def picture(self, output: torch.Tensor, batch: Batch) -> tuple[str, torch.Tensor]:
        return "labels", colour(read_labels(output))


def read_labels(output_BCHW: torch.Tensor) -> torch.Tensor:
    """Return (B, H, W) uint8 label maps: the class of the largest channel, of equal ones the first."""
    # Channel by channel: on a CPU torch's max over them takes twice as long, and its argmax ten times (benchmarks/evaluation.py).
    first, *others = output_BCHW.contiguous().unbind(1)
    best, label = first.clone(), torch.zeros_like(first, dtype=torch.uint8)
    for number, channel in enumerate(others, 1):
        larger = (channel > best).view(torch.uint8).mul_(number)  # this number or 0; those before are smaller
        torch.maximum(label, larger, out=label)
        torch.maximum(best, channel, out=best)
    return label


def colour(label_BHW: torch.Tensor) -> torch.Tensor:
    """Return label maps in colour, (B, 3, H, W) in [-1, 1]."""
    palette = torch.tensor(PALETTE, dtype=torch.float32, device=label_BHW.device) / 127.5 - 1
    return palette[label_BHW.long()].permute(0, 3, 1, 2)


def dice(counts: np.ndarray) -> np.ndarray:
    """Return 2 |A∩B| / (|A| + |B|) from (..., C, 3) counts; NaN for a class that neither truth nor prediction has."""
    both, found, true = counts[..., 0], counts[..., 1], counts[..., 2]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(found + true > 0, 2 * both / (found + true), np.nan)


def _counts(found_BHW: torch.Tensor, truth_BHW: torch.Tensor, hole_BHW: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return (B, C, 3) pixels per class outside and inside the hole: in both maps, in `found`, in `truth`."""
    classes, samples = len(CLASSES), len(found_BHW)
    # Sample, side of the hole and both classes as one number: a single bincount serves the batch.
    index = hole_BHW.long() + 2 * torch.arange(samples, device=found_BHW.device)[:, None, None]
    index = (index * classes + truth_BHW) * classes + found_BHW
    counts = torch.bincount(index.flatten(), minlength=samples * 2 * classes**2).view(samples, 2, classes, classes)
    three = torch.stack([counts.diagonal(dim1=2, dim2=3), counts.sum(2), counts.sum(3)], dim=-1).double().cpu().numpy()
    return three[:, 0], three[:, 1]


def _residuals(counts_BC3: np.ndarray) -> np.ndarray:
    """Return (B, C) what each sample adds to the pooled Dice; NaN for a class that no sample has."""
    # A pooled Dice is a ratio of sums: this is its linearization, as in the delta method.
    both, size = 2 * counts_BC3[..., 0], counts_BC3[..., 1] + counts_BC3[..., 2]
    with np.errstate(invalid="ignore", divide="ignore"):
        return (both - dice(counts_BC3.sum(0)) * size) / size.mean(0)


def _named(values: np.ndarray) -> dict[str, float]:
    """Return the values by class name, and their mean; classes without a value are left out."""
    named = {name: float(v) for name, v in zip(SCORED_CLASSES, values, strict=True) if not np.isnan(v)}
    return named | ({"mean": float(np.mean(list(named.values())))} if named else {})
