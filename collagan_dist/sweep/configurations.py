"""The configurations of a sweep: trials that are alike but for their seed count as one, by the means of their metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean, stdev

from collagan_dist.sweep.trial import Trial


def members(trials: Iterable[Trial]) -> dict[int, list[Trial]]:
    """Return the trials of each configuration by the number of its first; without those that confirm."""
    found: dict[int, list[Trial]] = {}
    for trial in trials:
        if trial.role != "confirm":
            found.setdefault(trial.configuration, []).append(trial)
    return found


def configurations(trials: Iterable[Trial], repeats: int) -> list[Trial]:
    """Return one trial for each configuration of `repeats` seeds: the first of them, with the means of all.

    It is evaluated where all are. One seed that fails makes it fail: a mean of the others would hide that it is unstable.
    """
    return [_mean_trial(group, repeats) for group in members(trials).values()]


def to_repeat(trials: Iterable[Trial], repeats: int) -> Trial | None:
    """Return the first trial of a configuration that has not been started with all of its seeds; None where there is none."""
    # One that has failed with a seed has failed.
    lacking = (group for group in members(trials).values() if len(group) < repeats and not any(t.failed for t in group))
    return next((group[0] for group in lacking), None)


def standard_error(group: Sequence[Trial], metric: str, samples: int) -> float | None:
    """Return the standard error of a configuration's mean over its seeds; None for one seed, or without a result of each."""
    values = [(trial.metrics_at(samples) or {}).get(metric) for trial in group]
    known = [value for value in values if value is not None]
    return stdev(known) / math.sqrt(len(known)) if len(known) == len(values) > 1 else None


def _mean_trial(group: Sequence[Trial], repeats: int) -> Trial:
    if repeats == 1:
        return group[0]
    results: dict[int, dict[str, float]] = {}
    if len(group) >= repeats:
        for at in set.intersection(*(set(trial.results) for trial in group)):
            each = [trial.results[at] for trial in group]
            names = [name for name in each[0] if all(name in one for one in each)]
            results[at] = {name: fmean(one[name] for one in each) for name in names}
    return replace(
        group[0], results=results, until=max(trial.until for trial in group), running=any(trial.running for trial in group),
        failure=next((trial.failure for trial in group if trial.failure), None),
    )  # fmt: skip
