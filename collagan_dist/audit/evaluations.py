"""Audits evaluations of a run: metrics against their own rows by sample, and random samples against the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict

from collagan_dist import structured
from collagan_dist.audit.finding import AuditFinding
from collagan_dist.audit.ranks import NotComparable
from collagan_dist.audit.record import Removed, RunRecord, configuration
from collagan_dist.audit.rederive import nudge
from collagan_dist.config.load import config_to_dict, leaves, validate_config
from collagan_dist.config.tree import Config
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.errors import CheckpointError, ConfigError, DataError
from collagan_dist.inference.evaluate import Measured, batches_of, measure_batch, summarize_rows
from collagan_dist.models.registry import load_predictor
from collagan_dist.reproduce.results import read_evaluation
from collagan_dist.runs import checkpoint
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.thinning import is_number
from collagan_dist.setup import Setup, build_setup
from collagan_dist.types import EvaluationHole, World

# Of a sample: beyond the largest difference that roundings make in the batch, and this share of a value. Counts of pixels may differ by a few.
_FACTOR, _LEAST, _LEAST_PIXELS = 30.0, 1e-3, 4
# They jump where another pixel of a heatmap becomes the largest: by any distance, but few of them do, this share or so many times as
# many as for the nudged weights.
_JUMPING, _JUMP_SHARE, _JUMP_FACTOR = "landmark_error", 0.05, 5
_SUMMARY = 1e-6  # the same sum of float64, perhaps by another NumPy
_SHOWN = 3


class _About(structured.Record):
    """What an evaluation says of itself."""

    model_config = ConfigDict(extra="allow")

    split: str
    hole: EvaluationHole
    blend: Literal["none", "poisson"]
    samples: structured.Count
    damaged: structured.Count = 0
    step: structured.Count
    manifest: str
    settings: dict[str, Any]
    # Older ones do not say it: then the run's own.
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    # Of evaluate.batch_norm=batch alone, where numbers depend on them.
    ranks: structured.Count | None = None


def evaluation_files(record: RunRecord) -> list[Path]:
    """Return the evaluations of a run, by name."""
    return sorted(record.paths.evaluations.glob("[!.]*.json")) if record.paths.evaluations.is_dir() else []


def audit_evaluation(record: RunRecord, path: Path, manifest: Manifest, random: Random, work: Path) -> AuditFinding:
    """Return what is found of one evaluation: all its metrics, and the rows of one random batch of its samples."""
    finding = AuditFinding(path.stem, "not comparable", "evaluation")
    try:
        about = structured.read(path, _About, DataError, "evaluate again")
        metrics, rows = read_evaluation(path)
        if about.manifest != manifest.hash:
            return replace(finding, notes=("it is of another data set; give that by --data",))
        if problem := _wrong_ids(about, rows["ids"], _count(about, manifest)):
            return replace(finding, verdict="damaged", wrong=(f"{path.with_suffix('.npz')}: {problem}",))
    except DataError as error:
        return replace(finding, verdict="damaged", wrong=(str(error),))
    try:
        audit = _EvaluationAudit(record, path, about, manifest, work)
        return audit.judge(replace(finding, verdict="differs"), metrics, rows, random)
    except Removed:
        return replace(finding, notes=(f"its checkpoint, of step {about.step}, is not kept",))
    except CheckpointError as error:
        return replace(finding, verdict="damaged", wrong=(str(error),))
    except (ConfigError, DataError, NotComparable) as error:
        return replace(finding, notes=(str(error),))


def _count(about: _About, manifest: Manifest) -> int:
    """Return how many samples an evaluation had to measure. Raises DataError where the data set has no such split."""
    samples, limit = manifest.samples(about.split), about.settings.get("samples")
    return min(samples, limit) if isinstance(limit, int) and limit > 0 else samples


def _wrong_ids(about: _About, ids: np.ndarray, count: int) -> str:
    """Return in which way the samples of an evaluation are not the first `count` of its split; "" where they are."""
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or not ids.size:
        return "has no numbers of samples (ids)"
    if about.samples != len(ids):
        return f"has {len(ids)} samples, where {about.samples} were measured"
    if int(ids.min()) < 0 or int(ids.max()) >= count or len(np.unique(ids)) < len(ids):
        return f"its samples are not different ones of 0 to {count - 1}"
    if count - len(ids) > about.damaged:
        return f"lacks {count - len(ids)} of {count} samples, where {about.damaged} were damaged"
    return ""


@dataclass
class _EvaluationAudit:
    record: RunRecord
    path: Path
    about: _About
    manifest: Manifest
    work: Path

    def judge(
        self, finding: AuditFinding, metrics: dict[str, Any], rows: dict[str, np.ndarray], random: Random
    ) -> AuditFinding:
        loaded = self.record.load(self.about.step)
        config, notes = self._configuration(configuration(loaded.state, loaded.path))
        setup = build_setup(config, World(), self.manifest)
        ranks = self.about.ranks if config.evaluate.batch_norm == "batch" else 1
        if not ranks:
            raise NotComparable("batch_norm=batch, and it does not say on how many ranks it was measured")
        numbers = random.choice(batches_of(_count(self.about, self.manifest), ranks))
        measure = partial(measure_batch, setup, about=self.about.model_dump(), numbers=numbers)
        ids, found = measure(self._predictor(setup, loaded, "as-it-is"))
        if misfits := _misfits(rows, found):
            text = f"{self.path.with_suffix('.npz')}: has no numbers of {', '.join(misfits)}"
            return replace(finding, verdict="damaged", wrong=(text,))
        wrong = self._summary(setup, metrics, rows, found)
        stored = _rows_of(rows, ids, [name for task in found.values() for name in task])
        compared = f"{len(ids)} of {len(rows['ids'])} samples"
        finding = replace(
            finding, compared=compared, notes=tuple(notes), reasons=("an evaluation does not record what computed it",)
        )
        if not (unequal := _unequal(ids, stored, found, None)):
            return replace(finding, verdict="differs" if wrong else "equal", wrong=tuple(wrong))
        names = ("generator", "discriminators", "ema")
        nudged = measure(self._predictor(setup, nudge(loaded, 0, names), "nudged"))[1]
        unequal = _unequal(ids, stored, found, nudged)
        wrong += [f"{self.path.with_suffix('.npz')}: {text}" for text in unequal[:_SHOWN]]
        return replace(finding, verdict="differs" if wrong else "within", wrong=tuple(wrong))

    def _configuration(self, trained: Config) -> tuple[Config, list[str]]:
        """Return the run's configuration with the settings of the evaluation, and notes on what cannot be had."""
        tree, notes = config_to_dict(trained), []
        settings = dict(self.about.settings)
        if settings.pop("features", None):
            notes.append("distances in a network's features")
        tree["evaluate"] |= {"augment": False, **settings, "features": None}
        tree["data"]["shards"] = str(self.manifest.folder)
        tree["runtime"]["precision"] = self.about.precision or tree["runtime"]["precision"]
        return validate_config(tree, f"{self.path}: settings"), notes

    def _predictor(self, setup: Setup, loaded: checkpoint.LoadedCheckpoint, name: str) -> Any:
        folder = self.work / self.path.stem / name
        paths = RunPaths(folder)
        checkpoint.save(paths.checkpoints, self.about.step, loaded.tensors, loaded.state, keep=1)
        return load_predictor(folder, setup.config, setup.engine, setup.tasks)[0]

    def _summary(
        self, setup: Setup, metrics: dict[str, Any], rows: dict[str, np.ndarray], found: Measured
    ) -> list[str]:
        """Return which metrics are not those of the evaluation's own rows."""
        by_task = {task: {name: rows[name] for name in values} for task, values in found.items()}
        computed = summarize_rows(setup.tasks, by_task)
        return _different(str(self.path), metrics, computed, _SUMMARY)[:_SHOWN]


def _different(where: str, stored: Mapping[str, Any], computed: Mapping[str, Any], tolerance: float) -> list[str]:
    """Return "where: key: stored, computed value" of numbers that differ; NaN stands for no value, which JSON leaves out."""
    then = leaves(stored)

    def alike(key: str, value: float) -> bool:
        if np.isnan(value):
            return key not in then
        return is_number(then.get(key)) and abs(then[key] - value) <= tolerance * abs(value)

    numbers = {k: v for k, v in leaves(computed).items() if isinstance(v, float | int) and not isinstance(v, bool)}
    return [
        f"{where}: {key}: {then.get(key)}, by its samples {value}"
        for key, value in numbers.items()
        if not alike(key, value)
    ]


def _misfits(rows: Mapping[str, np.ndarray], found: Measured) -> list[str]:
    """Return what is measured of a sample and is not stored, or not as numbers of that shape."""

    def fits(name: str, values: np.ndarray) -> bool:
        return name in rows and rows[name].shape[1:] == values.shape[1:] and rows[name].dtype.kind in "biuf"

    return [name for task in found.values() for name, values in task.items() if not fits(name, values)]


def _rows_of(rows: dict[str, np.ndarray], ids: np.ndarray, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return the stored rows of some samples by name, in the order of `ids`. A sample that is not stored has NaN."""
    place = {int(one): n for n, one in enumerate(rows["ids"])}
    chosen = [place.get(int(one), -1) for one in ids]
    known = np.array(chosen) >= 0
    found = {}
    for name in names:
        taken = rows[name][chosen].astype(np.float64)
        taken[~known] = np.nan
        found[name] = taken
    return found


def _unequal(ids: np.ndarray, stored: dict[str, np.ndarray], found: Measured, nudged: Measured | None) -> list[str]:
    """Return "sample N: name: stored, measured value" of rows that differ: at all, or with `nudged` beyond what roundings make."""
    texts = []
    for task, values in found.items():
        for name, now in values.items():
            then, now = stored[name], now.astype(np.float64)
            wrong = ~_near(then, now, 0.0) if nudged is None else beyond(name, then, now, nudged[task][name])
            for place in map(tuple, np.argwhere(wrong)[:1]):
                texts.append(f"sample {ids[place[0]]}: {name}: {then[place]:.6g}, measured {now[place]:.6g}")
    return texts


def _near(one: np.ndarray, other: np.ndarray, allowed: np.ndarray | float) -> np.ndarray:
    """Return where two rows differ by no more than is allowed. NaN stands for no value."""
    return (np.isnan(one) & np.isnan(other)) | (np.abs(one - other) <= allowed)


def beyond(name: str, then: np.ndarray, now: np.ndarray, nudged: np.ndarray) -> np.ndarray:
    """Return where stored rows are farther from the measured ones than roundings make those of nudged weights."""
    least = _LEAST_PIXELS if name.startswith("dice") else _LEAST * np.abs(now)
    if name.startswith(_JUMPING):
        wrong = ~_near(then, now, least)
        jumps = int((~_near(nudged, now, least)).sum())
        return wrong & (wrong.sum() > max(1, _JUMP_SHARE * now.size, _JUMP_FACTOR * jumps))
    noise = np.abs(nudged - now)
    return ~_near(then, now, _FACTOR * np.nanmax(noise, initial=0.0, where=~np.isnan(noise)) + least)
