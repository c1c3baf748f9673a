"""Evaluations of the runs as numbers of the tables: the JSON of each for its cell, its rows by sample for comparisons."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
from pydantic import ConfigDict

from collagan_dist import structured
from collagan_dist.errors import DataError
from collagan_dist.reproduce import paper, statistics
from collagan_dist.reproduce.paper import Reading, Score
from collagan_dist.reproduce.plan import PlannedRun
from collagan_dist.reproduce.run_status import is_evaluated
from collagan_dist.reproduce.statistics import Estimate
from collagan_dist.runs.thinning import is_number
from collagan_dist.types import CLASSES, LANDMARKS, SCORED_CLASSES

_PAPER_SIZE = 128  # pixels, the side of the paper's pictures


class _Subset(structured.Record):
    samples: int


class Results:
    """What is evaluated of a reproduction. A model is its runs, one for each seed.

    `reading` says at which positions the columns of Table 1 are measured (docs/paper.md).
    """

    def __init__(self, runs: Iterable[PlannedRun], manifest: str, reading: Reading = "numbers") -> None:
        self.reading: Final = reading
        self._runs: dict[str, list[PlannedRun]] = {}
        for run in runs:
            self._runs.setdefault(run.base, []).append(run)
        self._manifest = manifest
        # Each file is needed for several numbers, and each number for several claims.
        self._read = cache(read_evaluation)
        self._estimate = cache(self._measure)

    def score(self, table: int, column: str, kind: str = "") -> Score:
        """Return where our number of a cell comes from."""
        return paper.score(table, column, kind, self.reading)

    def is_complete(self, model: str, score: Score) -> bool:
        """Return whether every seed of the model is evaluated."""
        runs = self._runs.get(model, [])
        return bool(runs) and len(self._evaluated(model, score)) == len(runs)

    def values(self, model: str, score: Score) -> list[float]:
        """Return the number of each seed that has it, in the table's unit."""
        found = [lookup(metrics, score) for metrics in self._metrics(model, score)]
        return [value * score.factor for value in found if value is not None]

    def error(self, model: str, score: Score) -> float | None:
        """Return the standard error over samples of the mean over seeds."""
        seeds = list(self.seeds(model, score).values())
        if len(seeds) > 1:
            return statistics.average(seeds).se
        # One seed has a standard error in its evaluation already.
        found = [lookup(metrics.get("se", {}), score) for metrics in self._metrics(model, score)]
        return None if not found or found[0] is None else found[0] * score.factor

    def seeds(self, model: str, score: Score) -> dict[int, Estimate]:
        """Return the number of each evaluated seed with its error, in the table's unit."""
        found = {run.config.seed: self._estimate(path, score) for run, path in self._evaluated(model, score)}
        return {seed: estimate for seed, estimate in found.items() if estimate is not None}

    def hole_sizes(self, scores: Iterable[Score]) -> list[tuple[float, float]]:
        """Return the mean (height, width) of the hole at each evaluated position, in pixels of a 128x128 picture."""
        found: dict[str, tuple[float, float]] = {}
        for score in scores:
            for run, path in (one for model in self._runs for one in self._evaluated(model, score)):
                if size := self._read(path)[0].get("hole_size"):
                    factor = _PAPER_SIZE / _picture_size(run)
                    found.setdefault(score.hole, (size[0] * factor, size[1] * factor))
        return list(found.values())

    def picture_sizes(self, models: Iterable[str]) -> dict[str, int]:
        """Return the side of the pictures that each planned model is evaluated on, in pixels."""
        return {model: _picture_size(self._runs[model][0]) for model in models if model in self._runs}

    def baselines(self, models: Iterable[str], score: Score) -> dict[str, tuple[float, int]]:
        """Return (number in the table's unit, number of samples) of each baseline; empty where none was evaluated."""
        sizes = self.picture_sizes(models)
        # Baselines are the same beside every model of one picture size: the size that most models have.
        usual = Counter(sizes.values()).most_common(1)
        for model in (m for m, side in sizes.items() if side == usual[0][0]):
            for metrics in self._metrics(model, score):
                values = {name: lookup(one, score) for name, one in metrics.get("baselines", {}).items()}
                if known := {name: value * score.factor for name, value in values.items() if value is not None}:
                    samples = metrics.get("baselines_subset", metrics)["samples"]
                    return {name: (value, samples) for name, value in known.items()}
        return {}

    def _evaluated(self, model: str, score: Score) -> list[tuple[PlannedRun, Path]]:
        """Return the model's runs that are evaluated, each with the JSON of that."""
        found = [
            run for run in self._runs.get(model, []) if is_evaluated(run, score.hole, score.blended, self._manifest)
        ]
        return [(run, run.evaluation(score.hole, score.blended)) for run in found]

    def _metrics(self, model: str, score: Score) -> list[dict[str, Any]]:
        return [self._read(path)[0] for _, path in self._evaluated(model, score)]

    def _measure(self, path: Path, score: Score) -> Estimate | None:
        found = _from_rows(self._read(path)[1], score)
        return found and statistics.combine(lambda value: value * score.factor, found)


def _picture_size(run: PlannedRun) -> int:
    return run.config.evaluate.size or run.config.data.image_size


class _Metrics(structured.Record):
    """What of an evaluation is needed beside its metrics."""

    model_config = ConfigDict(extra="allow")

    samples: int | None = None
    se: dict[str, Any] = {}
    baselines: dict[str, dict[str, Any]] = {}
    baselines_subset: _Subset | None = None
    hole_size: tuple[float, float] | None = None


def read_evaluation(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return (metrics, rows by sample) of an evaluation, rows in the order of their ids. Raises DataError."""
    try:
        metrics = structured.read_record(path, _Metrics).model_dump(exclude_unset=True)
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as archive:
            rows = {name: archive[name] for name in archive.files}
        # Rows of two evaluations are compared by position once both are in the order of their ids.
        order = np.argsort(rows["ids"])
        return metrics, {name: values[order] for name, values in rows.items() if len(values) == len(order)}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read with the rows beside it ({error}); remove both files and evaluate again"
        ) from None


def lookup(metrics: dict[str, Any], score: Score) -> float | None:
    """Return the number of an evaluation that `score` means, in the evaluation's unit; None where it has none."""
    value = metrics.get(score.key)
    if isinstance(value, dict):
        value = value.get(score.part or "mean")
    return float(value) if is_number(value) else None


def _from_rows(rows: dict[str, np.ndarray], score: Score) -> Estimate | None:
    """Return a number as its evaluation computes it, from the rows by sample; averages are over what the samples show."""
    if score.key not in rows:
        return None
    ids, values = rows["ids"], rows[score.key]
    parts: list[Estimate | None]
    if score.key == "dice":
        names = SCORED_CLASSES if score.part == "mean" else (score.part,)
        # (N, C, 3): pixels of a class in both, predicted and true. Dice is pooled over samples: 2 both / (predicted + true).
        counts = [values[:, CLASSES.index(name)].astype(np.float64) for name in names if name]
        parts = [statistics.ratio(2 * one[:, 0], one[:, 1] + one[:, 2], ids) for one in counts]
    elif score.key == "landmark_error":
        points = LANDMARKS if score.part == "mean" else (score.part,)
        parts = [statistics.mean(values[:, LANDMARKS.index(point)], ids) for point in points if point]
    else:
        parts = [statistics.mean(values, ids)]
    # A class that no picture shows has no Dice, and is left out of the mean as in `collagan evaluate`.
    known = [part for part in parts if part is not None]
    return statistics.average(known) if known else None
