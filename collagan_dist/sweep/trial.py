"""What a sweep knows: its trials, read from their folders. Nothing else is remembered, so whatever was killed can be continued.

A trial's folder is an ordinary run folder with trial.json beside: which values it has, how far it may go, what made it fail.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from collagan_dist import files
from collagan_dist.errors import CheckpointError, ClusterError, DataError
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.metrics_log import read_eval_lines
from collagan_dist.sweep.space import METRICS

_MENDED = (DataError.exit_code, ClusterError.exit_code, CheckpointError.exit_code)


@dataclass(frozen=True)
class Trial:
    """One configuration and what became of it. Lengths are in samples.

    `values` are those of the searched keys, `notes` the sampler's; `until` is how far it may go, `results` maps lengths to
    metrics. `lineage` tells of each exchange of PBT: at which length, from whom, the values before. `failure` is (exit code, reason).
    """

    number: int
    role: str  # paper, base, search or confirm
    values: dict[str, Any]
    seed: int
    batch: int
    notes: dict[str, Any] = field(default_factory=dict)
    until: int = 0
    lineage: tuple[dict[str, Any], ...] = ()
    failure: tuple[int, str] | None = None
    restarts: int = 0
    results: dict[int, dict[str, float]] = field(default_factory=dict, compare=False)
    saved: int = field(default=0, compare=False)  # the step of its newest checkpoint, when it was last looked at
    running: bool = False

    @property
    def name(self) -> str:
        return f"t{self.number:03d}"

    @property
    def reached(self) -> int:
        """The length of its last result, 0 before the first."""
        return max(self.results, default=0)

    def steps(self, samples: int) -> int:
        """Steps to a length: the first that is no shorter."""
        return -(-samples // self.batch)

    def at(self, samples: int) -> dict[str, float] | None:
        """Its metrics at a length, or None."""
        return self.results.get(self.steps(samples) * self.batch)

    def has(self, samples: int) -> bool:
        return self.at(samples) is not None


_SAVED = [one.name for one in fields(Trial) if one.name not in ("results", "saved", "running")]

_KINDS = {
    "number": int, "role": str, "values": dict, "seed": int, "batch": int, "notes": dict, "until": int, "lineage": list, "restarts": int
}  # fmt: skip


def trial_dir(out: Path, trial: Trial) -> Path:
    return out / "trials" / trial.name


def write_trial(out: Path, trial: Trial) -> None:
    place = trial_dir(out, trial)
    place.mkdir(parents=True, exist_ok=True)
    saved = asdict(trial)
    files.write_json(RunPaths(place).trial, {name: saved[name] for name in _SAVED})


def read_trials(out: Path) -> list[Trial]:
    """The trials of a sweep, by number. Raises DataError for a file that is none of ours."""
    found = []
    for path in sorted((out / "trials").glob("t*/trial.json")):
        try:
            trial = _trial(json.loads(path.read_bytes()))
            if trial.name != path.parent.name:
                raise ValueError(f"it is of {trial.name}")
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DataError(f"{path}: is no trial of a sweep ({error!r}); restore it, or give another --out") from None
        found.append(with_results(out, trial))
    found.sort(key=lambda trial: trial.number)
    if [trial.number for trial in found] != list(range(len(found))):
        raise DataError(
            f"{out / 'trials'}: trials are missing between the first and the last; restore them, or give another --out"
        )
    return found


def _trial(saved: dict[str, Any]) -> Trial:
    """A trial from what was saved of it. Raises ValueError, LookupError or TypeError."""
    if wrong := [name for name, kind in _KINDS.items() if type(saved[name]) is not kind]:
        raise ValueError(f"{wrong[0]} is {saved[wrong[0]]!r}")
    if saved["batch"] < 1:
        raise ValueError("batch is below 1")
    failure = saved["failure"] and (int(saved["failure"][0]), str(saved["failure"][1]))
    return Trial(**{**{name: saved[name] for name in _SAVED}, "lineage": tuple(saved["lineage"]), "failure": failure})


def with_results(out: Path, trial: Trial, saved: int = 0) -> Trial:
    """The trial with what its run folder says now; of a checkpoint of step `saved` it is known that it is there."""
    place = trial_dir(out, trial)
    saved = max(saved, RunPaths(place).newest_step())
    return replace(trial, saved=saved, results=_results(place, trial.batch, saved))


def samples_trained(out: Path, trials: Iterable[Trial]) -> int:
    """Trained and saved, over all trials."""
    return sum(saved_step(out, trial) * trial.batch for trial in trials)


def saved_step(out: Path, trial: Trial) -> int:
    """The step of a trial's newest checkpoint. Only where it runs can that have changed: a folder of thousands is not looked through."""
    return RunPaths(trial_dir(out, trial)).newest_step() if trial.running else trial.saved


def retryable(trial: Trial) -> Trial:
    """A trial as a new start of the sweep sees it: what somebody may have mended since (data, cluster, disk) is tried again."""
    return replace(trial, failure=None) if trial.failure and trial.failure[0] in _MENDED else trial


def _results(run: Path, batch: int, saved: int) -> dict[int, dict[str, float]]:
    """Metrics by samples, of steps that a checkpoint has: others would be trained again."""
    return {row["step"] * batch: scores(row) for row in read_eval_lines(run) if row["step"] <= saved}


def scores(row: dict[str, Any]) -> dict[str, float]:
    """The metrics of an evaluation, averages for those that are of classes or points."""
    values = {name: row.get(name) for name in METRICS}
    plain = {name: value.get("mean") if isinstance(value, dict) else value for name, value in values.items()}
    return {name: float(value) for name, value in plain.items() if value is not None}
