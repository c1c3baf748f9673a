"""Which values a trial gets: Optuna's samplers, a grid, or random draws.

The values of trial n are a function of the seed, of n and of what is known of earlier trials. Each call makes a new sampler from
these, so no sampler's state has to be saved and a resumed sweep proposes the same values.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from collagan_dist.sweep.space import Space

if TYPE_CHECKING:
    import optuna

_MAX_DRAWS = 20  # attempts to find values that no trial has yet; small spaces run out of them
_POPULATION_RANGE = (4, 50)  # of NSGA-II: a quarter of the trials, within these limits


@dataclass(frozen=True)
class Observation:
    """What a sampler is told about an earlier trial: its values, what the sampler stored with them, and its metrics.

    `metrics` is None while there are none yet; a failed trial never has any. `constraints`: `Space.constraint_values` of them.
    """

    values: dict[str, Any]
    notes: dict[str, Any]
    metrics: tuple[float, ...] | None
    failed: bool = False
    constraints: dict[str, float] = field(default_factory=dict)


def generator_for(*key: int) -> np.random.Generator:
    """Return the random generator that belongs to a key."""
    return np.random.default_rng(np.random.SeedSequence(key))


def propose(
    space: Space, seed: int, number: int, trials: int, observations: Sequence[Observation]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (values, the sampler's notes) for search trial `number` out of `trials`."""
    if space.spec.search == "grid":
        return space.grid()[number], {}
    tried = [one.values for one in observations]
    if space.spec.search == "random":
        observations = ()  # it learns nothing from them
    for attempt in range(_MAX_DRAWS):
        key = (seed, number, attempt) if attempt else (seed, number)
        study = _study(space, int(generator_for(*key).integers(2**31)), trials, observations)
        with no_warnings():
            trial = study.ask(distributions(space))
        values = _values(space, trial.params)
        # The same values again would be the same run. NSGA-II's children are often copies of a parent.
        if values not in tried:
            break
    attributes = study.get_trials(deepcopy=False)[-1].system_attrs
    # NSGA-II finds its generations by these attributes, so they are stored with the trial; `fixed_params` is of this study alone.
    return values, {key: value for key, value in attributes.items() if key != "fixed_params"}


def importance(space: Space, observations: Sequence[Observation]) -> dict[str, dict[str, float]]:
    """Return by metric each key's share of the explained variance (PED-ANOVA, Watanabe 2023); {} where too little is known."""
    import optuna

    found: dict[str, dict[str, float]] = {}
    for number, metric in enumerate(space.metrics):
        study = optuna.create_study(direction=_direction(space.modes[number]))
        for one in observations:
            # A simplex is drawn by other parameters than its values, but people ask for the importance of the values.
            places = [dimension.clamped(one.values) for dimension in space.dimensions]
            nearest = [inside for inside in places if inside is not None]
            if one.metrics is not None and len(nearest) == len(places):
                params = {key: value for values, _ in nearest for key, value in values.items()}
                spans = {key: span for _, around in nearest for key, span in around.items()}
                trial = optuna.trial.create_trial(params=params, distributions=spans, value=one.metrics[number])
                study.add_trial(trial)
        with no_warnings():
            try:
                evaluator = optuna.importance.PedAnovaImportanceEvaluator()
                shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
            except (ValueError, RuntimeError):  # too few trials, or all alike
                continue
        total = sum(shares.values())
        if total > 0 and np.isfinite(total):
            found[metric] = {key: float(share / total) for key, share in shares.items()}
    return found


def distributions(space: Space) -> dict[str, Any]:
    """Return Optuna's distribution of each parameter that a sampler draws."""
    return {name: one for dimension in space.dimensions for name, one in dimension.distributions().items()}


def draw_random(space: Space, generator: np.random.Generator) -> dict[str, Any]:
    """Return random values of the space."""
    study = _study(space, int(generator.integers(2**31)), 1, (), "random")
    with no_warnings():
        return _values(space, study.ask(distributions(space)).params)


def _study(space: Space, seed: int, trials: int, observations: Sequence[Observation], search: str = "") -> optuna.Study:
    """Build a study that knows the observations, with a new sampler."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with no_warnings():
        sampler = _sampler(search or space.spec.search, seed, trials)
        study = optuna.create_study(directions=[_direction(mode) for mode in space.modes], sampler=sampler)
    states = optuna.trial.TrialState
    for one in observations:
        params = _params(space, one.values)
        if params is None:  # the paper's values may lie outside the space, and a study would refuse them
            continue
        metrics = None if one.failed else one.metrics
        state = states.FAIL if one.failed else states.RUNNING if metrics is None else states.COMPLETE
        facts: dict[str, Any] = {
            "params": params,
            "distributions": distributions(space),
            "system_attrs": dict(one.notes),
            "constraints": one.constraints if metrics is not None else None,
        }
        study.add_trial(optuna.trial.create_trial(state=state, values=metrics, **facts))
    return study


def _sampler(search: str, seed: int, trials: int) -> optuna.samplers.BaseSampler:
    import optuna

    if search == "tpe":
        # constant_liar: a trial that is running counts as a bad one, so that parallel trials are not proposed the same values.
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    if search == "nsga2":
        low, high = _POPULATION_RANGE
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=min(high, max(low, trials // 4)))
    return optuna.samplers.RandomSampler(seed=seed)


def _params(space: Space, values: dict[str, Any]) -> dict[str, Any] | None:
    """Return the parameters whose draw gives these values, None for values outside the space."""
    found = [dimension.to_params(values) for dimension in space.dimensions]
    return None if None in found else {name: value for params in found for name, value in (params or {}).items()}


def _values(space: Space, params: dict[str, Any]) -> dict[str, Any]:
    return {key: value for dimension in space.dimensions for key, value in dimension.from_params(params).items()}


def _direction(mode: str) -> Any:
    return "maximize" if mode == "max" else "minimize"


@contextmanager
def no_warnings() -> Iterator[None]:
    """Silence Optuna's warnings about experimental features."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
