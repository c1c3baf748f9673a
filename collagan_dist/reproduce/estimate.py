"""`collagan reproduce --dry-run`: what is left to train, and what that takes by the logs of runs that have begun."""

from __future__ import annotations

import json
from dataclasses import dataclass

from collagan_dist.config.load import config_to_dict
from collagan_dist.reproduce import driver, run_status
from collagan_dist.reproduce.plan import PlannedRun, ReproduceOptions
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.metrics_log import median_rate


@dataclass(frozen=True)
class RunEstimate:
    """How far a run is, and what it will take.

    `seconds` are those of the steps that are left, `bytes` those of all checkpoints that are kept. Both are None as long
    as no run of this kind has begun.
    """

    run: PlannedRun
    steps_done: int
    is_evaluated: bool
    seconds: float | None
    bytes: int | None


@dataclass(frozen=True)
class _Measured:
    samples_per_second: float
    checkpoint_bytes: int


def estimate(options: ReproduceOptions) -> list[RunEstimate]:
    """Return an estimate of every run. Nothing is trained or written."""
    runs, manifest = driver.prepare(options)
    measured = {run.name: _measure(run) for run in runs}
    # A run that has not begun takes as long as one of its kind, such as another seed.
    by_kind = {_kind(run): measured[run.name] for run in runs if measured[run.name] is not None}
    estimates = []
    for run in runs:
        known, done = measured[run.name] or by_kind.get(_kind(run)), run_status.steps_done(run)
        left = (run.steps - done) * run.config.schedule.batch
        # Old checkpoints are removed, and a short run has fewer than may be kept.
        checkpoints = min(run.config.checkpoint.keep, -(-run.steps // run.config.checkpoint.every))
        seconds = None if known is None else left / known.samples_per_second
        size = None if known is None else known.checkpoint_bytes * checkpoints
        evaluated = not run_status.not_evaluated(run, manifest.hash)
        estimates.append(RunEstimate(run, done, evaluated, seconds, size))
    return estimates


def _measure(run: PlannedRun) -> _Measured | None:
    """Return what the metrics and checkpoints of a run show; None where it has none yet."""
    paths = RunPaths(run.folder)
    rate = median_rate(run.folder)
    # The largest: later checkpoints may hold more, such as the moments of discriminators that join later.
    sizes = [sum(f.stat().st_size for f in paths.checkpoint(step).iterdir()) for step in paths.committed_steps()]
    if rate is None or not sizes:
        return None
    return _Measured(rate, max(sizes))


def _kind(run: PlannedRun) -> str:
    """Return what decides how long a step takes: not the seed, the kind of hole or the concentrated loss."""
    tree = config_to_dict(run.config)
    model = {key: value for key, value in tree["model"].items() if key not in ("concentrated", "gfc")}
    return json.dumps([model, tree["data"]["image_size"], tree["schedule"]["batch"], tree["runtime"]], sort_keys=True)
