"""Trials of a sweep that differ in their seed alone, as one: by the means of their metrics and the standard errors of these."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean, stdev

from collagan_dist.report.trial_data import Curve, TrialData

# What a configuration is, if one of its seeds is it.
_STATUS_ORDER = ("failed", "running", "paused", "waiting", "stopped", "done")


def by_configuration(trials: Iterable[TrialData], repeats: int) -> tuple[TrialData, ...]:
    """Return one trial for each configuration, under the number of its first; those that confirm stay as they are."""
    groups: dict[int, list[TrialData]] = {}
    for trial in trials:
        own = trial.number if trial.role == "confirm" or trial.configuration is None else trial.configuration
        groups.setdefault(own, []).append(trial)
    return tuple(group[0] if group[0].role == "confirm" else _mean(group, repeats) for group in groups.values())


def _mean(group: Sequence[TrialData], repeats: int) -> TrialData:
    """Return the mean over seeds, at the greatest length that all have reached."""
    first = group[0]
    failed = [trial for trial in group if trial.reason]
    order = {status: place for place, status in enumerate(_STATUS_ORDER)}
    samples = min((trial.samples for trial in group if trial.samples is not None), default=None)
    # A seed that has not begun may still change the mean.
    lacking = len(group) < repeats
    scores = {} if lacking else {name: _values(group, name, samples) for name in first.scores}
    known = {name: values for name, values in scores.items() if values}
    return replace(
        first,
        status=min(
            (*(trial.status for trial in group), *["paused"] * lacking), key=lambda one: order.get(one, len(order))
        ),
        scores={name: fmean(values) for name, values in known.items()},
        errors={name: stdev(values) / math.sqrt(len(values)) for name, values in known.items() if len(values) > 1},
        steps=min((trial.steps for trial in group if trial.steps is not None), default=None),
        samples=samples,
        restarts=sum(trial.restarts or 0 for trial in group),
        reason=f"with seed {failed[0].seed}: {failed[0].reason}" if failed else "",
        curves={name: _mean_curve(group, name) for name in first.curves or {}},
    )


def _values(group: Sequence[TrialData], name: str, samples: int | None) -> list[float]:
    """Return a metric of each seed at one length; none where one of them lacks it."""
    at = [
        trial.scores.get(name) if samples is None or trial.samples == samples else trial.at(name, samples)
        for trial in group
    ]
    found = [value for value in at if value is not None]
    return found if len(found) == len(group) else []


def _mean_curve(group: Sequence[TrialData], name: str) -> Curve:
    curves = [dict((trial.curves or {}).get(name, ())) for trial in group]
    common = sorted(set.intersection(*map(set, curves)))
    return tuple((at, fmean(curve[at] for curve in curves)) for at in common)
