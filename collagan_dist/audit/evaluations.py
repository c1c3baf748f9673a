"""Audits evaluations of a run: metrics against their own rows by sample, and random samples against the model."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict

from collagan_dist import __version__, structured
from collagan_dist.audit.finding import AuditFinding
from collagan_dist.audit.ranks import NotComparable, Resources, machine_reasons
from collagan_dist.audit.record import Removed, RunRecord, configuration
from collagan_dist.audit.rederive import nudge
from collagan_dist.config.load import config_to_dict, differences, leaves, validate_config
from collagan_dist.config.tree import Config
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.errors import CheckpointError, ConfigError, DataError
from collagan_dist.inference.evaluate import Measured, batches_of, measure_batch, summarize_rows
from collagan_dist.models.registry import load_predictor
from collagan_dist.reproduce.results import read_evaluation
from collagan_dist.runs import checkpoint
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.machine import code_commit, machine_state, rank_facts
from collagan_dist.runs.thinning import is_number
from collagan_dist.setup import Setup, build_setup
from collagan_dist.types import EvaluationHole, World
from collagan_dist.units import format_things

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
    # What computed it (runs/machine.py). Older ones have at most the number of ranks.
    machine: dict[str, Any] = {}
    ranks: structured.Count | None = None
    version: str | None = None

    @property
    def recorded_ranks(self) -> int | None:
        ranks = self.machine.get("ranks", self.ranks)
        return ranks if type(ranks) is int and ranks > 0 else None


def evaluation_files(record: RunRecord) -> list[Path]:
    """Return the evaluations of a run, by name."""
    return sorted(record.paths.evaluations.glob("[!.]*.json")) if record.paths.evaluations.is_dir() else []


def ranks_of_evaluation(path: Path, other: bool) -> tuple[int, ...]:
    """Return on how many ranks to measure an evaluation again: the recorded number, and with `other` another one."""
    about = structured.find(path, _About)
    own = (about and about.recorded_ranks) or 1
    # By statistics of the batch, the number of ranks decides which samples are one.
    fixed = about is not None and about.settings.get("batch_norm") == "batch"
    return (own, 1 if own > 1 else 2) if other and not fixed else (own,)


def audit_evaluation(record: RunRecord, path: Path, given: Resources, random: Random) -> Iterator[AuditFinding]:
    """Yield what is found of one evaluation for each number of ranks: all its metrics, and the rows of one random batch of its samples."""
    finding = AuditFinding(path.stem, "not comparable", "evaluation")
    try:
        about = structured.read(path, _About, DataError, "evaluate again")
        metrics, rows = read_evaluation(path)
        if about.manifest != given.manifest.hash:
            yield replace(finding, notes=("it is of another data set; give that by --data",))
            return
        if problem := _wrong_ids(about, rows["ids"], _count(about, given.manifest)):
            yield replace(finding, verdict="damaged", wrong=(f"{path.with_suffix('.npz')}: {problem}",))
            return
        audit = _EvaluationAudit(path, about, given, record.load(about.step))
    except Removed:
        yield replace(finding, notes=(f"its checkpoint, of step {about.step}, is not kept",))
        return
    except checkpoint.Unreadable as error:
        yield replace(finding, notes=(str(error),))
        return
    except (DataError, CheckpointError) as error:
        yield replace(finding, verdict="damaged", wrong=(str(error),))
        return
    for ranks in given.ranks:
        with_ranks = replace(finding, how=format_things(ranks, "rank"))
        try:
            yield audit.judge(with_ranks, ranks, metrics, rows, random)
        except (ConfigError, DataError, NotComparable) as error:
            yield replace(with_ranks, notes=(str(error),))
        except CheckpointError as error:
            yield replace(with_ranks, verdict="damaged", wrong=(str(error),))


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
    path: Path
    about: _About
    given: Resources
    loaded: checkpoint.LoadedCheckpoint

    def judge(
        self, finding: AuditFinding, ranks: int, metrics: dict[str, Any], rows: dict[str, np.ndarray], random: Random
    ) -> AuditFinding:
        """Measure a batch that one of `ranks` ranks has. They exchange nothing but what they measured, so one process is enough."""
        config, notes = self._configuration(configuration(self.loaded.state, self.loaded.path))
        self._check_batches(config, ranks)
        setup = build_setup(config, World(), self.given.manifest)
        finding = replace(finding, notes=tuple(notes), **self._computed_by(setup, ranks))
        numbers = random.choice(batches_of(_count(self.about, self.given.manifest), ranks))
        measure = partial(measure_batch, setup, about=self.about.model_dump(), numbers=numbers)
        ids, found = measure(self._predictor(setup, self.loaded))
        if misfits := _misfits(rows, found):
            text = f"{self.path.with_suffix('.npz')}: has no numbers of {', '.join(misfits)}"
            return replace(finding, verdict="damaged", wrong=(text,))
        wrong = self._summary(setup, metrics, rows, found)
        stored = _rows_of(rows, ids, [name for task in found.values() for name in task])
        finding = replace(finding, verdict="differs", compared=f"{len(ids)} of {len(rows['ids'])} samples")
        if not (unequal := _unequal(ids, stored, found, None)):
            return replace(finding, verdict="differs" if wrong else "equal", wrong=tuple(wrong))
        names = ("generator", "discriminators", "ema")
        nudged = measure(self._predictor(setup, nudge(self.loaded, 0, names)))[1]
        beyond_roundings = _unequal(ids, stored, found, nudged)
        if not finding.reasons:
            size = "larger" if beyond_roundings else "no larger"
            wrong.append(
                f"bits differ, although all that is recorded is equal; the difference is {size} than roundings make it"
            )
            beyond_roundings = beyond_roundings or unequal
        wrong += [f"{self.path.with_suffix('.npz')}: {text}" for text in beyond_roundings[:_SHOWN]]
        return replace(finding, verdict="differs" if wrong else "within", wrong=tuple(wrong))

    def _check_batches(self, config: Config, ranks: int) -> None:
        """Raise NotComparable where so many ranks would have other batches, and the batches decide the numbers."""
        known = self.about.recorded_ranks
        if config.evaluate.batch_norm != "batch" or ranks == known:
            return
        on = (
            f"was measured on {format_things(known, 'rank')}"
            if known
            else "does not say on how many ranks it was measured"
        )
        raise NotComparable(f"batch_norm=batch, and it {on}: the number of ranks decides which samples are a batch")

    def _computed_by(self, setup: Setup, ranks: int) -> dict[str, Any]:
        """Return with what this is measured (`how`), and why bits may differ from what was recorded (`reasons`)."""
        facts = rank_facts(setup.group)
        here = machine_state([facts], code_commit()) | {"ranks": ranks}
        how = f"{format_things(ranks, 'rank')}, {format_things(facts['threads'], 'thread')}"
        if not self.about.machine:
            return {"how": how, "reasons": ("the evaluation does not say what computed it",)}
        reasons = differences({"version": self.about.version}, {"version": __version__})
        reasons += machine_reasons(self.about.machine, here, setup.config.runtime.precision)
        return {"how": how, "reasons": tuple(reasons)}

    def _configuration(self, trained: Config) -> tuple[Config, list[str]]:
        """Return the run's configuration with the settings of the evaluation, and notes on what cannot be had."""
        tree, notes = config_to_dict(trained), []
        settings = dict(self.about.settings)
        if settings.pop("features", None):
            notes.append("distances in a network's features")
        tree["evaluate"] |= {"augment": False, **settings, "features": None}
        self.given.set_in(tree, self.about.machine)
        tree["runtime"]["precision"] = self.about.precision or tree["runtime"]["precision"]
        return validate_config(tree, f"{self.path}: settings"), notes

    def _predictor(self, setup: Setup, loaded: checkpoint.LoadedCheckpoint) -> Any:
        folder = self.given.work / self.path.stem
        paths = RunPaths(folder)
        checkpoint.save(paths.checkpoints, self.about.step, loaded.tensors, loaded.state, keep=1)
        predictor = load_predictor(folder, setup.config, setup.engine, setup.tasks)[0]
        shutil.rmtree(folder)  # it is as large as a checkpoint
        return predictor

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
