"""Starting a trial: which values and seed the next one gets, and the configuration that it trains."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from collagan_dist.config.tree import Config
from collagan_dist.sweep import results, schedule, search
from collagan_dist.sweep.resources import TrialResources
from collagan_dist.sweep.schedule import SweepPlan
from collagan_dist.sweep.trial import Trial


def new_trial(plan: SweepPlan, trials: Sequence[Trial]) -> Trial:
    """Return the next trial: first the paper's λ and the base configuration, then the search's, at last those that confirm."""
    initial, searched = plan.space.initial_points(), sum(trial.role != "confirm" for trial in trials)
    seed = plan.seed
    notes: dict[str, Any] = {}
    if searched >= plan.trials:
        role, (values, seed) = "confirm", schedule.missing_confirmations(plan, trials)[0]
    elif searched < len(initial):
        role, values = initial[searched]
    else:
        # Counted without confirming trials: `--trials` may grow after those, and must not change what the search proposes.
        role, number = "search", searched - len(initial)
        observations = results.observations(plan, trials)
        values, notes = search.propose(plan.space, plan.seed, number, plan.trials, observations)
    return Trial(len(trials), role, values, seed, plan.space.config(values).schedule.batch, notes)


def trial_config(base: Config, plan: SweepPlan, trial: Trial, resources: TrialResources) -> Config:
    """Return what a trial trains: the base configuration with its values, a full run long, evaluated at its end."""
    steps = trial.steps(plan.total)
    more: dict[str, Any] = {"seed": trial.seed, "schedule.steps": steps, "evaluate.every": base.evaluate.every or steps}
    if base.model.gfc.parser:
        more["model.gfc.parser"] = str(Path(base.model.gfc.parser).absolute())  # workers run in other folders
    if find_spec("tensorboardX"):
        more["log.sinks"] = list(dict.fromkeys([*base.log.sinks, "tensorboard"]))
    # Left to themselves, torch and the data pipeline of each trial would take all CPUs of the node.
    threads = max(1, int(resources.cpus))
    more |= {f"{part}.threads": threads for part in ("runtime", "data") if not getattr(base, part).threads}
    return plan.space.config(trial.values, **more)
