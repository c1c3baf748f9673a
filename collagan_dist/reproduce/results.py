"""Evaluations of the runs as numbers of the tables: the JSON of each for its cell, its rows by sample for comparisons."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from collagan_dist.errors import DataError
from collagan_dist.reproduce.paper import Score
from collagan_dist.reproduce.plan import PlannedRun
from collagan_dist.reproduce.run_status import is_scored
from collagan_dist.reproduce.statistics import Estimate, average, combine, mean, ratio
from collagan_dist.types import CLASSES, LANDMARKS, SCORED_CLASSES


class Results:
    """What is scored of a reproduction. A model is its runs, one a seed."""

    def __init__(self, runs: Iterable[PlannedRun], manifest: str) -> None:
        self._runs: dict[str, list[PlannedRun]] = {}
        for run in runs:
            self._runs.setdefault(run.base, []).append(run)
        self._manifest = manifest
        self._read = cache(_read)

    def evaluations(self, model: str, score: Score) -> list[Path]:
        """The JSON of every seed that is scored."""
        return [run.evaluation(score.hole, score.blended) for run in self._scored(model, score)]

    def is_whole(self, model: str, score: Score) -> bool:
        """Whether every seed is scored."""
        runs = self._runs.get(model, [])
        return bool(runs) and len(self._scored(model, score)) == len(runs)

    def values(self, model: str, score: Score) -> list[float]:
        """The number of every seed that has it, in the table's unit."""
        found = [_dig(self._read(path)[0], score) for path in self.evaluations(model, score)]
        return [value * score.factor for value in found if value is not None]

    def error(self, model: str, score: Score) -> float | None:
        """Standard error over samples of the mean over seeds."""
        paths = self.evaluations(model, score)
        if len(paths) == 1:
            value = _dig(self._read(paths[0])[0].get("se", {}), score)
            return None if value is None else value * score.factor
        estimate = self.estimate(model, score)
        return None if estimate is None else estimate.se

    def estimate(self, model: str, score: Score) -> Estimate | None:
        """The mean over seeds with its influences, in the table's unit; None where nothing is scored."""
        parts = self.seeds(model, score)
        return average(list(parts.values())) if parts else None

    def seeds(self, model: str, score: Score) -> dict[int, Estimate]:
        """One estimate a seed that is scored, in the table's unit."""
        found = {run.config.seed: _estimate(self._rows(run, score), score) for run in self._scored(model, score)}
        return {seed: combine([one], [score.factor]) for seed, one in found.items() if one is not None}

    def dice_counts(self, model: str, score: Score) -> tuple[np.ndarray, np.ndarray] | None:
        """(ids, (N, C, 2) of statistics.bootstrap_dice) of the first seed."""
        paths = self.evaluations(model, score)
        return _dice_terms(self._read(paths[0])[1]) if paths else None

    def hole_sizes(self, scores: Iterable[Score]) -> list[tuple[float, float]]:
        """Mean (height, width) of the hole in pixels of a 128x128 picture, one for each position that an evaluation tells of."""
        found: dict[str, tuple[float, float]] = {}
        for score in scores:
            for runs in self._runs.values():
                for run in runs:
                    if not is_scored(run, score.hole, score.blended, self._manifest):
                        continue
                    if size := self._read(run.evaluation(score.hole, score.blended))[0].get("hole_size"):
                        factor = 128 / _size(run)
                        found.setdefault(score.hole, (size[0] * factor, size[1] * factor))
        return list(found.values())

    def sizes(self, models: Iterable[str]) -> dict[str, int]:
        """The side of the pictures that each planned model is scored on, pixels."""
        return {model: _size(self._runs[model][0]) for model in models if model in self._runs}

    def baselines(self, models: Iterable[str], score: Score) -> dict[str, tuple[float, int]]:
        """(number in the table's unit, samples behind it) of each trivial baseline: the same beside every model of a picture size."""
        sizes = self.sizes(models)
        usual = Counter(sizes.values()).most_common(1)
        for model in (m for m, side in sizes.items() if side == usual[0][0]):
            for path in self.evaluations(model, score):
                metrics = self._read(path)[0]
                values = {name: _dig(one, score) for name, one in metrics.get("baselines", {}).items()}
                if known := {name: value * score.factor for name, value in values.items() if value is not None}:
                    samples = metrics.get("baselines_subset", metrics)["samples"]
                    return {name: (value, samples) for name, value in known.items()}
        return {}

    def _scored(self, model: str, score: Score) -> list[PlannedRun]:
        runs = self._runs.get(model, [])
        return [run for run in runs if is_scored(run, score.hole, score.blended, self._manifest)]

    def _rows(self, run: PlannedRun, score: Score) -> dict[str, np.ndarray]:
        return self._read(run.evaluation(score.hole, score.blended))[1]


def _size(run: PlannedRun) -> int:
    return run.config.evaluate.size or run.config.data.image_size


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(metrics, rows by sample) of an evaluation; rows in the order of their ids. Raises DataError."""
    rows_file = path.with_suffix(".npz")
    try:
        metrics = json.loads(path.read_bytes())
        with np.load(rows_file, allow_pickle=False) as archive:
            rows = {name: archive[name] for name in archive.files}
        order = np.argsort(rows["ids"])
        return metrics, {name: values[order] for name, values in rows.items() if len(values) == len(order)}
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path}: cannot be read with the rows beside it ({error}); remove both files and run again"
        ) from None


def _dig(metrics: dict[str, Any], score: Score) -> float | None:
    value = metrics.get(score.key)
    if isinstance(value, dict):
        value = value.get(score.part or "mean")
    return None if value is None else float(value)


def _estimate(rows: dict[str, np.ndarray], score: Score) -> Estimate | None:
    if score.key not in rows:
        return None
    ids, values = rows["ids"], rows[score.key]
    if score.key == "dice":
        names: tuple[str, ...] = SCORED_CLASSES if score.part == "mean" else (score.part or "",)
        terms = _dice_terms(rows)[1]
        at = [SCORED_CLASSES.index(name) for name in names]
        parts = [ratio(terms[:, c, 0], terms[:, c, 1], ids) for c in at]
        known = [part for part in parts if part is not None]
        return average(known) if known else None
    if score.key == "landmark_error":
        points: tuple[str, ...] = LANDMARKS if score.part == "mean" else (score.part or "",)
        return average([mean(values[:, LANDMARKS.index(point)], ids) for point in points])
    return mean(values, ids)


def _dice_terms(rows: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    counts = rows["dice"][:, [CLASSES.index(name) for name in SCORED_CLASSES]].astype(np.float64)
    return rows["ids"], np.stack([2 * counts[..., 0], counts[..., 1] + counts[..., 2]], axis=-1)
