"""`collagan label --check`: compare the label maps that a parser would write with existing ones, by Dice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from collagan_dist.config.tree import Config
from collagan_dist.data.readers.label_maps import read_label_map
from collagan_dist.data.readers.picture import UnusablePicture
from collagan_dist.errors import DataError
from collagan_dist.inference.face_parser import FaceParser
from collagan_dist.inference.labelling import PhotoSet, Progress, predict_label_maps
from collagan_dist.tasks.segmentation import Segmentation, dice
from collagan_dist.types import CLASSES, SCORED_CLASSES, Sample


@dataclass(frozen=True)
class Agreement:
    """Dice pooled over pictures, by class (absent ones left out), with standard errors and the mean of the scored classes.

    `true` and `found` are each class's share of all pixels. `unusable` pictures could not be read.
    """

    pictures: int
    without_map: int
    unusable: int
    dice: dict[str, float]
    errors: dict[str, float]
    true: dict[str, float]
    found: dict[str, float]


def check_label_maps(
    parser: FaceParser, photos: PhotoSet, batch: int, progress: Progress = lambda done, total: None
) -> Agreement:
    """Compare the label maps of complete pictures; pixels outside the parser's views count as background. Writes nothing.

    Raises DataError when there is no map to compare with, or no picture can be read.
    """
    existing = {path.name for path in photos.maps.iterdir()} if photos.maps.is_dir() else set()
    # Every picture has the slot that it has in labelling; those without a map leave theirs black.
    wanted = [s if photos.path(s).name in existing else None for s in photos.samples]
    without = wanted.count(None)
    if without == len(wanted):
        raise DataError(
            f"{photos.maps}: holds no label map of these pictures to compare with; give their folder by --out, or label without --check"
        )

    # Runs in the parser's threads; only the counts come back, since maps are large.
    def compare(sample: Sample, labels: np.ndarray) -> np.ndarray:
        return pixel_counts(labels, read_label_map(str(photos.path(sample)), labels.shape))

    rows, unusable = [], 0
    for _, result in predict_label_maps(parser, wanted, batch, compare):
        # As packing, which leaves such pictures out.
        if isinstance(result, UnusablePicture):
            unusable += 1
        else:
            rows.append(result)
        progress(len(rows) + unusable, len(wanted) - without)
    if not rows:
        raise DataError(f"{photos.maps}: none of {unusable} pictures could be read")
    return _agreement(np.stack(rows), without, unusable)


def pixel_counts(found_HW: np.ndarray, true_HW: np.ndarray) -> np.ndarray:
    """Return (C, 3) numbers of pixels of each class: in both maps, in the found one, in the true one."""
    parts = (true_HW[found_HW == true_HW], found_HW.ravel(), true_HW.ravel())
    return np.stack([np.bincount(part, minlength=len(CLASSES)) for part in parts], axis=-1).astype(np.float64)


def _agreement(counts_BC3: np.ndarray, without: int, unusable: int) -> Agreement:
    # The sums of the segmentation task's metrics, so that --check and evaluate agree in what Dice is.
    total = counts_BC3.sum(0)
    values, errors = Segmentation(Config()).summarize({"dice": counts_BC3})
    # A class that neither map has anywhere has Dice 0/0, which is NaN.
    by_class = {name: float(v) for name, v in zip(CLASSES, dice(total), strict=True) if not np.isnan(v)}
    mean = {name: v for name, v in values["dice"].items() if name not in SCORED_CLASSES}
    shares = total / total[:, 2].sum()
    return Agreement(
        pictures=len(counts_BC3),
        without_map=without,
        unusable=unusable,
        dice=by_class | mean,
        errors=errors["dice"],
        true=dict(zip(CLASSES, shares[:, 2].tolist(), strict=True)),
        found=dict(zip(CLASSES, shares[:, 1].tolist(), strict=True)),
    )
