"""The next trial of a sweep, and what a trial trains. Functions of the plan and of the trials so far, like those of schedule.py."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from collagan_dist.config.tree import Config
from collagan_dist.sweep import results, schedule, search
from collagan_dist.sweep.configurations import members, to_repeat
from collagan_dist.sweep.resources import TrialResources
from collagan_dist.sweep.schedule import SweepPlan
from collagan_dist.sweep.segment import worker_settings
from collagan_dist.sweep.trial import Trial


def new_trial(plan: SweepPlan, trials: Sequence[Trial]) -> Trial:
    """Return the next trial: first those given (the paper's λ, the base configuration, `start`), then the search's, at last those that confirm.

    With `repeats` each configuration comes with all of its seeds before the next one.
    """
    over = schedule.goal_reached(plan, trials) is not None
    if not over and (first := to_repeat(trials, plan.repeats)) is not None:
        seed = plan.seed + sum(trial.configuration == first.number for trial in trials)
        return Trial(len(trials), first.role, first.values, seed, first.batch, repeat_of=first.number)
    initial, searched = plan.space.initial_points(), len(members(trials))
    seed = plan.seed
    notes: dict[str, Any] = {}
    if searched >= plan.trials or over:
        role, (values, seed) = "confirm", schedule.missing_confirmations(plan, trials)[0]
    elif searched < len(initial):
        role, values = initial[searched]
    else:
        # Counted without confirming trials: `--trials` may grow after those, and must not change what the search proposes.
        role, number = "search", searched - len(initial)
        observations = results.observations(plan, trials)
        values, notes = search.propose(plan.space, plan.seed, number, plan.trials, observations)
    return Trial(len(trials), role, values, seed, plan.space.config(values).schedule.batch, notes)


def trial_config(plan: SweepPlan, trial: Trial, resources: TrialResources) -> Config:
    """Return what a trial trains: the base configuration with its values, a full run long, evaluated at its end."""
    # With its values: the paths that a worker needs absolute can be searched.
    config, steps = plan.space.config(trial.values), trial.steps(plan.total)
    more: dict[str, Any] = {
        "seed": trial.seed,
        "schedule.steps": steps,
        "evaluate.every": config.evaluate.every or steps,
    }
    more |= worker_settings(config, resources.cpus)
    if find_spec("tensorboardX"):
        more["log.sinks"] = list(dict.fromkeys([*config.log.sinks, "tensorboard"]))
    return plan.space.config(trial.values, **more)
