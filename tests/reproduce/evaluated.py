"""Folders of scored runs, as `collagan train` and `collagan evaluate` leave them, with rows whose truth is known."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from collagan_dist.config.load import validate_config
from collagan_dist.config.tree import Config
from collagan_dist.reproduce import paper
from collagan_dist.reproduce.plan import PlannedRun
from collagan_dist.runs.evaluation_name import evaluation_settings
from collagan_dist.tasks.segmentation import Segmentation
from collagan_dist.types import CLASSES, LANDMARKS, POSITIONS, SCORED_CLASSES

MANIFEST = "a-manifest"
STEPS = 3


def run_of(out: Path, base: str, seed: int = 0, **changes: Any) -> PlannedRun:
    name = f"{base}-seed{seed}" if seed else base
    tree = {"schedule": {"steps": STEPS}, "seed": seed, **changes}
    return PlannedRun(name, base, validate_config(tree, "test"), out, STEPS)


def write(run: PlannedRun, hole: str, blended: bool, metrics: dict[str, Any], rows: dict[str, np.ndarray]) -> None:
    """One evaluation of a run."""
    path = run.evaluation(hole, blended)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"step": STEPS, "manifest": MANIFEST, "settings": evaluation_settings(run.config)}
    path.write_text(json.dumps({**metrics, **about}))
    np.savez(path.with_suffix(".npz"), **rows)


def write_quality(run: PlannedRun, hole: str, ssim: np.ndarray, psnr: np.ndarray) -> None:
    """Table 1's numbers at a position, the same blended and not."""
    rows = {"ids": np.arange(len(psnr)), "psnr": psnr, "ssim": ssim}
    metrics = {"psnr": psnr.mean(), "ssim": ssim.mean(), "hole_size": [40.0, 48.0]}
    metrics["se"] = {name: rows[name].std(ddof=1) / np.sqrt(len(psnr)) for name in ("psnr", "ssim")}
    for blended in (False, True):
        write(run, hole, blended, metrics, rows)


def write_points(run: PlannedRun, errors_N5: np.ndarray) -> None:
    """Table 3's numbers."""
    columns_N6 = np.column_stack([errors_N5, errors_N5.mean(1)])
    names, errors_6 = (*LANDMARKS, "mean"), columns_N6.std(axis=0, ddof=1) / np.sqrt(len(errors_N5))
    means, se = (dict(zip(names, values.tolist(), strict=True)) for values in (columns_N6.mean(0), errors_6))
    metrics = {"landmark_error": means, "se": {"landmark_error": se}}
    write(run, "block", False, metrics, {"ids": np.arange(len(errors_N5)), "landmark_error": errors_N5})


def write_dice(run: PlannedRun, counts_NC3: np.ndarray) -> None:
    """Table 2's numbers, summarised by the task itself."""
    values, errors = Segmentation(Config()).summarize({"dice": counts_NC3, "dice_hole": counts_NC3})
    rows = {"ids": np.arange(len(counts_NC3)), "dice": counts_NC3}
    write(run, "block", False, {**values, "se": errors}, rows)


def random_counts(generator: np.random.Generator, samples: int, quality: float) -> np.ndarray:
    """(N, C, 3) pixels a class: in both, predicted, true."""
    true = generator.integers(50, 200, (samples, len(CLASSES))).astype(float)
    both = np.round(true * np.clip(generator.normal(quality, 0.05, true.shape), 0, 1))
    return np.stack([both, true, true], axis=-1)


def as_printed(out: Path, samples: int = 40) -> list[PlannedRun]:
    """Every model of Table 1, scored as the paper prints it, with the same noise on all."""
    generator = np.random.default_rng(1)
    noise = generator.normal(0, 1, samples)
    noise -= noise.mean()
    runs = [run_of(out, model) for model in paper.rows(1)]
    for run in runs:
        for column in POSITIONS:
            ssim = paper.printed(1, run.base, column, "ssim") / 100 + 0.01 * noise
            own = generator.normal(0, 0.02, samples)
            hole = paper.score(1, column, "psnr", "numbers").hole
            write_quality(run, hole, ssim, paper.printed(1, run.base, column, "psnr") + noise + own - own.mean())
    return runs


SCORED_AT = [CLASSES.index(name) for name in SCORED_CLASSES]
