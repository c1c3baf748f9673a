"""One trial of a sweep and its folder: an ordinary run folder with a file trial.json beside.

trial.json holds what the run folder does not say: the trial's values, how far it may train, why it failed. Everything else is
read from the run folder. A sweep remembers nothing more, so a sweep that was killed at any moment can be resumed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from collagan_dist import files, structured
from collagan_dist.errors import CheckpointError, ClusterError, DataError
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.metrics_log import read_eval_lines
from collagan_dist.runs.thinning import is_number
from collagan_dist.sweep.space_spec import METRICS

# Exit codes of what somebody may have repaired since: data, cluster, disk. A wrong configuration or NaN would fail the same way again.
_RETRYABLE_EXIT_CODES = (DataError.exit_code, ClusterError.exit_code, CheckpointError.exit_code)


@dataclass(frozen=True)
class Trial:
    """One configuration and its results so far. All lengths are in samples.

    `values`: those of the searched keys. `notes`: what the sampler stored. `until`: how far it may train, in samples.
    `repeat_of`: the trial whose configuration it trains with another seed, None for a first one.
    `lineage`: PBT's exploits, each with its length (`at`), the donor (`from`) and the former `values`.
    `failure`: (exit code, reason). `results`: metrics by length. `saved`: step of the newest checkpoint when last read.
    """

    number: int
    role: str  # paper, base, start, search or confirm
    values: dict[str, Any]
    seed: int
    batch: int
    notes: dict[str, Any] = field(default_factory=dict)
    repeat_of: int | None = None
    until: int = 0
    lineage: tuple[dict[str, Any], ...] = ()
    failure: tuple[int, str] | None = None
    restarts: int = 0
    results: dict[int, dict[str, float]] = field(default_factory=dict, compare=False)
    saved: int = field(default=0, compare=False)
    running: bool = False

    @property
    def name(self) -> str:
        return f"t{self.number:03d}"

    @property
    def configuration(self) -> int:
        """The number of the first trial of its configuration."""
        return self.number if self.repeat_of is None else self.repeat_of

    @property
    def failed(self) -> bool:
        return self.failure is not None

    @property
    def reached(self) -> int:
        """The length of the last evaluation, 0 before the first."""
        return max(self.results, default=0)

    def steps(self, samples: int) -> int:
        """Return the number of steps to a length: the first step that is no shorter."""
        # Trials have batches of different sizes, so a rung can fall between two steps.
        return -(-samples // self.batch)

    def metrics_at(self, samples: int) -> dict[str, float] | None:
        return self.results.get(self.steps(samples) * self.batch)

    def evaluated_at(self, samples: int) -> bool:
        return self.metrics_at(samples) is not None


class _Exploit(structured.Record):
    model_config = ConfigDict(extra="allow")

    at: structured.Count


class _TrialFile(structured.Record):
    """The content of trial.json: what of a Trial is stored."""

    number: structured.Count
    role: str
    values: dict[str, Any]
    seed: structured.Count
    batch: Annotated[structured.Count, Field(ge=1)]
    notes: dict[str, Any]
    repeat_of: structured.Count | None = None
    until: structured.Count
    lineage: tuple[_Exploit, ...]
    failure: tuple[int, str] | None
    restarts: structured.Count


def trial_dir(out: Path, trial: Trial) -> Path:
    return out / "trials" / trial.name


def write_trial(out: Path, trial: Trial) -> None:
    folder = trial_dir(out, trial)
    folder.mkdir(parents=True, exist_ok=True)
    stored = asdict(trial)
    files.write_json(RunPaths(folder).trial, {name: stored[name] for name in _TrialFile.model_fields})


def read_trials(out: Path) -> list[Trial]:
    """Return the trials of a sweep, sorted by number. Raises DataError for a file that is none of a sweep."""
    trials = []
    for path in sorted((out / "trials").glob("t*/trial.json")):
        found = structured.read(path, _TrialFile, DataError, "restore it, or give another --out")
        trial = Trial(**found.model_dump())
        if trial.name != path.parent.name:
            raise DataError(f"{path}: is of {trial.name}; restore it, or give another --out")
        trials.append(with_results(out, trial))
    trials.sort(key=lambda trial: trial.number)
    # Numbers seed the search, so trials after a gap would not be those that the sweep started.
    if [trial.number for trial in trials] != list(range(len(trials))):
        raise DataError(f"{out / 'trials'}: trials are missing before the last; restore them, or give another --out")
    for trial in trials:
        if trial.repeat_of is not None and not _repeats(trial, trials):
            path = RunPaths(trial_dir(out, trial)).trial
            raise DataError(f"{path}: does not repeat trial {trial.repeat_of}; restore it, or give another --out")
    return trials


def _repeats(trial: Trial, trials: Sequence[Trial]) -> bool:
    """Whether a trial has the configuration of the one that it is said to repeat, an earlier one that repeats none itself."""
    first = trials[min(trial.configuration, trial.number)]
    return (first.role, first.values, first.repeat_of) == (trial.role, trial.values, None)


def with_results(out: Path, trial: Trial, saved: int = 0) -> Trial:
    """Return the trial with the results of its run folder; a checkpoint of step `saved` is known to exist."""
    folder = trial_dir(out, trial)
    saved = max(saved, RunPaths(folder).newest_step())
    return replace(trial, saved=saved, results=_results(folder, trial.batch, saved))


def samples_trained(out: Path, trials: Iterable[Trial]) -> int:
    """Return how many samples all trials have trained and saved."""
    return sum(saved_step(out, trial) * trial.batch for trial in trials)


def saved_step(out: Path, trial: Trial) -> int:
    """Return the step of a trial's newest checkpoint."""
    # Only a running trial writes checkpoints. Thousands of folders on network storage are not listed several times a second.
    return RunPaths(trial_dir(out, trial)).newest_step() if trial.running else trial.saved


def without_retryable_failure(trial: Trial) -> Trial:
    """Return the trial as a new start of the sweep treats it: failures that may be repaired since are forgotten."""
    return replace(trial, failure=None) if trial.failure and trial.failure[0] in _RETRYABLE_EXIT_CODES else trial


def _results(run: Path, batch: int, saved: int) -> dict[int, dict[str, float]]:
    """Return the metrics of evaluations by length in samples."""
    # An evaluation after the newest checkpoint would be repeated on resume, so a decision must not rest on it.
    return {row["step"] * batch: _metrics(row) for row in read_eval_lines(run) if row["step"] <= saved}


def searched_metrics(row: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics of an evaluation that it has: averages where one is given per class or per landmark."""
    values = {name: row[name] for name in METRICS if name in row}
    return {name: value.get("mean") if isinstance(value, dict) else value for name, value in values.items()}


def _metrics(row: dict[str, Any]) -> dict[str, float]:
    # NaN and Inf are left out of metrics.jsonl, so a metric can be missing; such a trial is ranked last.
    return {name: float(value) for name, value in searched_metrics(row).items() if is_number(value)}


def keep_newest_checkpoint(out: Path, trial: Trial) -> None:
    """Remove all but the newest checkpoint of a trial of which no segment runs: a promotion and PBT's exploit need no other."""
    from collagan_dist.runs import checkpoint  # imports torch, which the driver does not need otherwise

    folder = RunPaths(trial_dir(out, trial)).checkpoints
    checkpoint.remove_unfinished(folder)
    checkpoint.prune(folder, trial.saved, keep=1)


def adopt_checkpoint(member: Path, donor: Path, step: int) -> None:
    """Replace a run's checkpoint of a step by the donor run's (PBT's exploit), so that a kill at any moment can be undone."""
    target = RunPaths(member).checkpoint(step)
    # Names with a dot in front are no checkpoints to any reader, so a half copied one is never resumed from.
    adopted, own = target.with_name(f".{target.name}.adopted"), target.with_name(f".{target.name}.own")
    for leftover in (adopted, own):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(RunPaths(donor).checkpoint(step), adopted, copy_function=link_or_copy)
    # A folder cannot be replaced by one rename, so there is a moment with neither; undo_interrupted_adoptions mends it.
    if target.exists():
        target.rename(own)
    adopted.rename(target)
    files.fsync(target.parent)
    shutil.rmtree(own, ignore_errors=True)


def undo_interrupted_adoptions(out: Path) -> None:
    """Restore the checkpoints of a sweep's trials that a kill between the two renames left set aside."""
    for own in out.glob("trials/t*/checkpoints/.step-*.own"):
        target = own.with_name(own.name.removeprefix(".").removesuffix(".own"))
        if not target.exists():
            own.rename(target)


def link_or_copy(source: str, target: str) -> None:
    # Checkpoint files never change after they are written, so a hard link is as good as a copy and costs nothing.
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
