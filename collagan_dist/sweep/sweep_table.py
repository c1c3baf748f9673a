"""A sweep's folder for programs: a row for each trial, and its configurations as an Optuna study.

Values and metrics are read from the trials themselves, with their types, also while the sweep runs. (The report reads trials.csv:
it stands below this package.)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from collagan_dist import structured
from collagan_dist.errors import DataError
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.thinning import is_number
from collagan_dist.sweep.configurations import configurations
from collagan_dist.sweep.results import trial_status
from collagan_dist.sweep.search import no_warnings
from collagan_dist.sweep.space_spec import METRICS, Bounds, constraint_values
from collagan_dist.sweep.trial import Trial, read_trials, trial_dir

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

Row = dict[str, Any]


class _Metric(structured.Record):
    name: str
    mode: Literal["max", "min"]


class _Key(structured.Record):
    """What sweep.json says of a searched key (`Dimension.describe`)."""

    kind: str
    low: float | None = None
    high: float | None = None
    values: list[Any] | None = None
    total: float | None = None

    @model_validator(mode="after")
    def _check(self) -> _Key:
        low, high = self.span
        if self.values is None and not low < high:
            raise ValueError("needs values, a total above 0, or low below high")
        return self

    @property
    def span(self) -> tuple[float, float]:
        """The ends of a range, or of each value of a simplex; (0, 0) of neither."""
        if self.low is not None and self.high is not None:
            return self.low, self.high
        return 0.0, self.total or 0.0


class _SweepFacts(structured.Record):
    status: str
    metrics: Annotated[tuple[_Metric, ...], Field(min_length=1)]
    keys: dict[str, _Key]
    rungs: Annotated[tuple[int, ...], Field(min_length=1)]
    constraints: dict[str, Bounds] = {}
    repeats: Annotated[int, Field(ge=1)] = 1


@dataclass(frozen=True)
class _Sweep:
    out: Path
    facts: _SweepFacts
    trials: list[Trial]

    def status(self, trial: Trial) -> str:
        return trial_status(self.facts.rungs[-1], trial, self.facts.status == "done")

    def violations(self, trial: Trial) -> dict[str, float]:
        """By how much its last evaluation breaks each constraint, 0 or less where it keeps it; {} before the first."""
        return constraint_values(self.facts.constraints, trial.results[trial.reached]) if trial.reached else {}


def _read(out: Path) -> _Sweep:
    """Read a sweep's folder. Raises DataError."""
    mend = "name the folder that `collagan sweep` wrote with --out"
    facts = structured.read(out / "sweep.json", _SweepFacts, DataError, mend)
    trials = read_trials(out)
    numbers = [key for key, one in facts.keys.items() if one.values is None]
    for trial in trials:
        if trial.values.keys() != facts.keys.keys() or not all(is_number(trial.values[key]) for key in numbers):
            path = RunPaths(trial_dir(out, trial)).trial
            raise DataError(f"{path}: its values are not of the keys that sweep.json names; restore it")
    if facts.status == "running":  # a segment that was handed out and has no result yet
        trials = [replace(trial, running=not trial.failed and trial.until > trial.reached) for trial in trials]
    return _Sweep(out, facts, trials)


def table(out: Path) -> list[Row]:
    """Return a row for each trial: trial, configuration, status, steps, samples, its metrics, config/KEY for each searched key, and more facts.

    Metrics are those of the trial's last evaluation, after `samples` samples; `breaks` names the constraints that they break. With
    repeats, trials of one `configuration` (the number of the first of them) differ in their seed alone. Raises DataError.
    """
    sweep = _read(out)
    return [_row(sweep, trial) for trial in sweep.trials]


def _row(sweep: _Sweep, trial: Trial) -> Row:
    metrics = trial.results.get(trial.reached, {})
    return {
        "trial": trial.number, "configuration": trial.configuration, "status": sweep.status(trial), "steps": trial.saved,
        "samples": trial.reached, **metrics,
        **{f"config/{key}": trial.values.get(key) for key in sweep.facts.keys},
        "role": trial.role, "seed": trial.seed, "restarts": trial.restarts,
        "breaks": "; ".join(name for name, beyond in sweep.violations(trial).items() if beyond > 0),
        "reason": trial.failure[1] if trial.failure else "", "path": str(trial_dir(sweep.out, trial)),
    }  # fmt: skip


def columns(rows: Iterable[Row]) -> list[str]:
    """Return the columns of a table in their order: not every trial has every metric."""
    found = list(dict.fromkeys(key for row in rows for key in row))
    metrics = [name for name in METRICS if name in found]
    at = found.index("samples") + 1 if found else 0
    others = [name for name in found if name not in metrics]
    return [*others[:at], *metrics, *others[at:]]


def study(out: Path) -> optuna.Study:
    """Return the configurations of a sweep as an Optuna study in memory, without the trials that confirm with other seeds.

    With repeats a configuration has the means of its seeds and the facts of its first trial, as the sweep itself sees it. One
    that was stopped at a rung is pruned, and has its results as intermediate values by samples. Raises DataError.
    """
    import optuna

    sweep = _read(out)
    searched = configurations(sweep.trials, sweep.facts.repeats)
    metrics = sweep.facts.metrics
    directions: list[Any] = ["maximize" if metric.mode == "max" else "minimize" for metric in metrics]
    said = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it logs that a study was created
    with no_warnings():  # names are experimental
        found = optuna.create_study(study_name=out.resolve().name, directions=directions)
        found.set_metric_names([metric.name for metric in metrics])
    optuna.logging.set_verbosity(said)
    # The paper's values may lie outside the space, so that ranges and choices are made wider by what was tried.
    spans = {
        key: _distribution(one, [trial.values[key] for trial in searched]) for key, one in sweep.facts.keys.items()
    }
    for trial in searched:
        found.add_trial(_frozen(sweep, trial, spans))
    return found


def _frozen(sweep: _Sweep, trial: Trial, spans: dict[str, BaseDistribution]) -> FrozenTrial:
    """Return a trial as Optuna knows it."""
    from optuna.trial import TrialState, create_trial

    names = [metric.name for metric in sweep.facts.metrics]
    metrics = trial.results.get(trial.reached, {})
    curve = {samples: one[names[0]] for samples, one in sorted(trial.results.items()) if names[0] in one}
    known = {
        "done": TrialState.COMPLETE, "failed": TrialState.FAIL, "stopped": TrialState.PRUNED, "waiting": TrialState.WAITING
    }  # fmt: skip
    state = known.get(sweep.status(trial), TrialState.RUNNING)
    if state == TrialState.COMPLETE and any(name not in metrics for name in names):
        state = TrialState.FAIL  # a metric is no number
    return create_trial(
        state=state, values=[metrics[name] for name in names] if state == TrialState.COMPLETE else None,
        params={key: _category(value) for key, value in trial.values.items()}, distributions=spans,
        # Of several objectives Optuna knows no intermediate values.
        intermediate_values=curve if len(names) == 1 else {}, user_attrs=_row(sweep, trial), constraints=sweep.violations(trial),
    )  # fmt: skip


def _distribution(key: _Key, tried: Sequence[Any]) -> BaseDistribution:
    """Return the range or the choices of a key, with all that was tried."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if key.values is not None:
        return CategoricalDistribution(tuple(dict.fromkeys(map(_category, [*key.values, *tried]))))
    low, high = min([key.span[0], *tried]), max([key.span[1], *tried])
    if key.kind == "int" and all(value == int(value) for value in tried):
        return IntDistribution(int(low), int(high))
    return FloatDistribution(low, high, log=key.kind == "loguniform" and low > 0)


def _category(value: Any) -> Any:
    # Optuna's choices are None, bool, int, float or str; ours can be lists.
    return value if value is None or isinstance(value, bool | str) or is_number(value) else json.dumps(value)
