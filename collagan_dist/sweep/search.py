"""Which values a trial gets: a function of the seed, the trial's number and what is known by then. No sampler keeps a state."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from collagan_dist.sweep.space import Space

if TYPE_CHECKING:
    import optuna

_ATTEMPTS = 20  # at values that no trial has yet; small spaces run out of them
_POPULATION = (4, 50)  # of NSGA-II: a quarter of the trials, within these


@dataclass(frozen=True)
class Observation:
    """What is known of an earlier trial: its values, what the sampler noted beside them, and its metrics; None while it has none.

    `failed` trials never get any.
    """

    values: dict[str, Any]
    notes: dict[str, Any]
    metrics: tuple[float, ...] | None
    failed: bool = False


def rng(*key: int) -> np.random.Generator:
    """Random numbers that belong to a key."""
    return np.random.default_rng(np.random.SeedSequence(key))


def propose(
    space: Space, seed: int, number: int, trials: int, observations: Sequence[Observation]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(values, notes of the sampler) of search trial `number`, of `trials` in all."""
    if space.spec.search == "grid":
        return space.grid()[number], {}
    tried = [one.values for one in observations]
    if space.spec.search == "random":
        observations = ()  # it learns nothing
    for attempt in range(_ATTEMPTS):
        study = _study(
            space, int(rng(seed, number, *([attempt] if attempt else [])).integers(2**31)), trials, observations
        )
        with _quiet():
            trial = study.ask(distributions(space))
        values = _values(space, trial.params)
        if values not in tried:  # the same again would be the same run: nsga2's children are often a parent's copy
            break
    attributes = study.get_trials(deepcopy=False)[-1].system_attrs
    return values, {key: value for key, value in attributes.items() if key != "fixed_params"}


def importance(space: Space, observations: Sequence[Observation]) -> dict[str, dict[str, float]]:
    """By metric, each key's share of what the values explain of it (PED-ANOVA, Watanabe 2023); {} where too little is known.

    A simplex's draws are not its values, so importance is computed on the values themselves.
    """
    import optuna

    done = [one for one in observations if one.metrics is not None]
    found: dict[str, dict[str, float]] = {}
    for number, metric in enumerate(space.metrics):
        study = optuna.create_study(direction=_direction(space.modes[number]))
        for one in done:
            assert one.metrics is not None
            plain, spread = _plain(space, one.values)
            study.add_trial(optuna.trial.create_trial(params=plain, distributions=spread, value=one.metrics[number]))
        with _quiet():
            try:
                shares = optuna.importance.get_param_importances(
                    study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
                )
            except (ValueError, RuntimeError):  # too few trials, or all alike
                continue
        total = sum(shares.values())
        if total > 0 and np.isfinite(total):
            found[metric] = {key: float(share / total) for key, share in shares.items()}
    return found


def distributions(space: Space) -> dict[str, Any]:
    return {name: one for dimension in space.dimensions for name, one in dimension.distributions().items()}


def draw(space: Space, generator: np.random.Generator) -> dict[str, Any]:
    """Random values of the space."""
    study = _study(space, int(generator.integers(2**31)), 1, (), "random")
    with _quiet():
        return _values(space, study.ask(distributions(space)).params)


def _study(space: Space, seed: int, trials: int, observations: Sequence[Observation], search: str = "") -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with _quiet():
        study = optuna.create_study(
            directions=[_direction(mode) for mode in space.modes],
            sampler=_sampler(search or space.spec.search, seed, trials),
        )
    for one in observations:
        params = _params(space, one.values)
        if params is None:  # the paper's values may lie outside the space
            continue
        state = (
            optuna.trial.TrialState.FAIL
            if one.failed
            else optuna.trial.TrialState.RUNNING
            if one.metrics is None
            else optuna.trial.TrialState.COMPLETE
        )
        study.add_trial(
            optuna.trial.create_trial(state=state, values=one.metrics if not one.failed else None, params=params,
                                      distributions=distributions(space), system_attrs=dict(one.notes))
        )  # fmt: skip
    return study


def _sampler(search: str, seed: int, trials: int) -> optuna.samplers.BaseSampler:
    import optuna

    if search == "tpe":
        # A trial without metrics counts as a bad one: what runs beside is not proposed again, what was stopped early is no loss.
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    if search == "nsga2":
        low, high = _POPULATION
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=min(high, max(low, trials // 4)))
    return optuna.samplers.RandomSampler(seed=seed)


def _params(space: Space, values: dict[str, Any]) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    for dimension in space.dimensions:
        params = dimension.params(values)
        if params is None:
            return None
        found |= params
    return found


def _plain(space: Space, values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A trial's values, moved to the nearest of the space where they lie outside, with their distributions."""
    plain: dict[str, Any] = {}
    spread: dict[str, Any] = {}
    for dimension in space.dimensions:
        inside, around = dimension.plainly(values)
        plain, spread = plain | inside, spread | around
    return plain, spread


def _values(space: Space, params: dict[str, Any]) -> dict[str, Any]:
    return {key: value for dimension in space.dimensions for key, value in dimension.values(params).items()}


def _direction(mode: str) -> Any:
    return "maximize" if mode == "max" else "minimize"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's remarks on what is experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
