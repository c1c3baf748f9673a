"""Which trial of a sweep trains next, and for how long: the schedulers none, ASHA, synchronous halving and PBT.

Pure functions of a `SweepPlan` and of the list of all trials: the same arguments give the same answer. They read no file, no clock
and no environment, and keep no state. What they know of a trial is its `Trial` (trial.py) and nothing else.

The unit of work is a `Segment`: a stretch of one trial's training that ends at a rung, with an evaluation and a checkpoint there.
A promotion is one more segment, a pause is the time between two, and resuming a killed sweep is asking the same question again.

With `repeats` several trials are one configuration (configurations.py): schedulers see it as one trial with the means of its metrics,
and all of its trials are promoted together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

import numpy as np

from collagan_dist.sweep import ranking, search
from collagan_dist.sweep.configurations import configurations, members, to_repeat
from collagan_dist.sweep.space import Space
from collagan_dist.sweep.space_spec import METRICS
from collagan_dist.sweep.trial import Trial

WAIT: Literal["wait"] = "wait"  # nothing to start until a running segment has ended
DONE: Literal["done"] = "done"  # nothing to start any more


@dataclass(frozen=True)
class Goal:
    """A value of a metric that ends the search once a trial reaches it."""

    metric: str
    value: float

    def is_met(self, metrics: Mapping[str, float]) -> bool:
        sign = 1 if METRICS[self.metric][0] == "max" else -1
        return self.metric in metrics and sign * metrics[self.metric] >= sign * self.value

    def __str__(self) -> str:
        return f"{self.metric}{'>=' if METRICS[self.metric][0] == 'max' else '<='}{self.value:g}"


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep is to do. Lengths of training are in samples; `rungs` are ascending, and the last is `total`.

    `trials` counts configurations: with `repeats` each is as many trials.
    `confirm` is the number of extra seeds with which the paper's λ and the best trial are trained again at the end.
    `goal` ends the search when a trial reaches it.
    """

    space: Space
    trials: int
    total: int
    rungs: tuple[int, ...]
    seed: int
    confirm: int = 0
    goal: Goal | None = None

    @property
    def scheduler(self) -> str:
        return self.space.spec.scheduler

    @property
    def repeats(self) -> int:
        return self.space.spec.repeats

    @property
    def metric(self) -> str:
        """The first metric: of several, that by which one best trial is chosen."""
        return self.space.metrics[0]

    @property
    def needed(self) -> tuple[str, ...]:
        """The metrics without which a trial cannot be compared: those that are optimised or have constraints."""
        return tuple(dict.fromkeys([*self.space.metrics, *self.space.spec.constraints]))

    def scores(self, trial: Trial, samples: int) -> tuple[float, ...]:
        """Return the metrics of a trial at a length, negated where less is better; -inf for one without a number."""
        metrics = trial.metrics_at(samples) or {}
        signs = [1 if mode == "max" else -1 for mode in self.space.modes]
        names = zip(signs, self.space.metrics, strict=True)
        return tuple(sign * metrics[name] if name in metrics else -inf for sign, name in names)

    def broken(self, trial: Trial, samples: int) -> dict[str, float]:
        """Return the constraints that a trial breaks at a length, with how far, relative to the bound; {} before it is evaluated."""
        metrics = trial.metrics_at(samples)
        found = {} if metrics is None else self.space.constraint_values(metrics)
        return {name: beyond for name, beyond in found.items() if beyond > 0}

    def reaches_goal(self, trial: Trial) -> bool:
        """Whether a trial that has not failed has met the goal at a rung, and kept the constraints there."""
        # Between rungs no result counts, and a failed trial is never the best: the sweep would end without what it found.
        goal = self.goal
        return (
            goal is not None
            and not trial.failed
            and any(goal.is_met(trial.metrics_at(rung) or {}) and not self.broken(trial, rung) for rung in self.rungs)
        )

    def last_rung(self, trial: Trial) -> int:
        """Return the longest rung at which a trial was evaluated, 0 before the first."""
        return max((rung for rung in self.rungs if trial.evaluated_at(rung)), default=0)

    def ranked(self, trials: Sequence[Trial], samples: int) -> list[Trial]:
        """Sort trials by their metrics at a length, best first, as `ranking.order` says; ties by number.

        Every decision of a sweep rests on this order: promotions, PBT's exploits, the best trial.
        """
        # Ties need an order of their own: a resumed sweep must make the same decisions.
        known = sorted(trials, key=lambda trial: trial.number)
        points = [self.scores(trial, samples) for trial in known]
        beyond = [sum(self.broken(trial, samples).values()) for trial in known]
        violations = [inf if -inf in point else one for point, one in zip(points, beyond, strict=True)]
        return [known[index] for index in ranking.order(points, violations)]


@dataclass(frozen=True)
class Segment:
    """Train trial `number` up to `samples`. A number that no trial has yet starts a new one."""

    number: int
    samples: int


@dataclass(frozen=True)
class Exploit:
    """PBT: trial `number` continues from the networks of trial `donor` at length `at`, with `values` of its own."""

    number: int
    donor: int
    at: int
    values: dict[str, Any]


def next_segment(plan: SweepPlan, trials: Sequence[Trial]) -> Segment | Literal["wait", "done"]:
    """Return what to start now beside what is running. `trials` are all there are, sorted by number."""
    searched = configurations(trials, plan.repeats)
    if goal_reached(plan, trials) is not None:
        is_searching = any(trial.running for trial in trials if trial.role != "confirm")
        return WAIT if is_searching else _next_confirmation(plan, trials)
    goals = _GOALS[plan.scheduler](plan, searched)
    groups, due = members(trials), []
    for one in searched:
        # `until` keeps a promise: a promotion that a kill interrupted is finished, even if better trials have arrived at its rung since.
        samples = max(goals.get(one.number, 0), one.until)
        waiting = [trial for trial in groups[one.number] if not trial.running and not trial.evaluated_at(samples)]
        due += [Segment(trial.number, samples) for trial in waiting if samples and not one.failed]
    if due:
        # Promotions before new trials, the furthest first, as in Algorithm 2 of ASHA (Li 2020).
        return min(due, key=lambda segment: (-segment.samples, segment.number))
    if len(searched) < plan.trials or to_repeat(trials, plan.repeats):
        return Segment(len(trials), plan.rungs[0])
    if any(trial.running for trial in searched):
        return WAIT
    return _next_confirmation(plan, trials)


def goal_reached(plan: SweepPlan, trials: Sequence[Trial]) -> Trial | None:
    """Return the first configuration that has reached the plan's goal, None without one."""
    if plan.goal is None:
        return None
    return next((one for one in configurations(trials, plan.repeats) if plan.reaches_goal(one)), None)


def best_trial(plan: SweepPlan, trials: Sequence[Trial]) -> Trial | None:
    """Return the best configuration among those that were trained furthest; None without any that keeps the constraints."""
    return next(iter(contenders(plan, trials)), None)


def contenders(plan: SweepPlan, trials: Sequence[Trial]) -> list[Trial]:
    """Return the configurations that were trained furthest of all that keep the constraints, best first."""
    alive = [trial for trial in configurations(trials, plan.repeats) if not trial.failed]
    kept = [trial for trial in alive if not plan.broken(trial, plan.last_rung(trial))]
    # Scores at different lengths are not comparable: a short run that scores well may have been overtaken by all others since.
    furthest = max(map(plan.last_rung, kept), default=0)
    return plan.ranked([trial for trial in kept if trial.evaluated_at(furthest)], furthest)


def paper_trial(plan: SweepPlan, trials: Sequence[Trial]) -> Trial | None:
    """Return the configuration with the paper's λ, if the sweep has one."""
    return next((trial for trial in configurations(trials, plan.repeats) if trial.role == "paper"), None)


def pareto_front(plan: SweepPlan, trials: Sequence[Trial]) -> list[Trial]:
    """Return the fully trained configurations that keep the constraints and that no other such one dominates."""
    # Only full runs: a short one may lead in one metric just because it is short.
    full = [trial for trial in configurations(trials, plan.repeats) if not plan.broken(trial, plan.total)]
    points = [(trial, scores) for trial in full if -inf not in (scores := plan.scores(trial, plan.total))]
    ranks = ranking.pareto_ranks(np.array([scores for _, scores in points])) if points else ()
    return [trial for (trial, _), rank in zip(points, ranks, strict=True) if rank == 0]


def expected_samples(plan: SweepPlan) -> float:
    """Return how many samples the search trains in all if no trial fails."""
    if plan.scheduler in ("none", "pbt"):
        return float(plan.trials * plan.repeats * plan.total)
    # Of ASHA this is the least: it promotes by what is known at the time, and corrects itself by promoting more.
    left, previous, samples = plan.trials, 0, 0.0
    for rung in plan.rungs:
        samples += plan.repeats * left * (rung - previous)
        left, previous = max(1, left // plan.space.spec.rungs.factor), rung
    return samples


def due_exploits(plan: SweepPlan, trials: Sequence[Trial]) -> list[Exploit]:
    """Return what PBT changes before its population continues (truncation selection, Jaderberg 2017); often nothing."""
    if plan.scheduler != "pbt" or goal_reached(plan, trials) is not None:
        return []
    population = configurations(trials, plan.repeats)
    at = _last_common_rung(plan, population)
    # A member that was already sent past this generation shows that all its exploits were carried out.
    if not 0 < at < plan.total or any(member.until > at for member in population):
        return []
    alive = plan.ranked([member for member in population if not member.failed], at)
    # A single member has nobody to copy from.
    count = max(1, int(len(alive) * plan.space.spec.pbt.quantile)) if len(alive) > 1 else 0
    due = []
    for member in alive[len(alive) - count :]:
        # After a kill in the middle of a generation only the missing exploits are due; each draws from numbers of its own.
        if not any(entry["at"] == at for entry in member.lineage):
            generator = search.generator_for(plan.seed, at, member.number)
            donor = alive[int(generator.integers(count))]
            due.append(Exploit(member.number, donor.number, at, _explore(plan.space, donor.values, generator)))
    return due


def _explore(space: Space, values: dict[str, Any], generator: Any) -> dict[str, Any]:
    """Perturb or redraw each of a donor's values."""
    drawn = search.draw_random(space, generator)
    explored: dict[str, Any] = {}
    for dimension in space.dimensions:
        redraw = generator.random() < space.spec.pbt.resample
        explored |= {key: drawn[key] for key in dimension.keys} if redraw else dimension.perturbed(values, generator)
    return explored


# Goals: how far the trials with these numbers may train, as far as is known now.


def _full_length_goals(plan: SweepPlan, trials: Sequence[Trial]) -> dict[int, int]:
    return {trial.number: plan.total for trial in trials}


def _asha_goals(plan: SweepPlan, trials: Sequence[Trial]) -> dict[int, int]:
    """Promote a trial from a rung as soon as it is in the best 1/factor of those that arrived there (Li 2020)."""
    goals = {trial.number: plan.rungs[0] for trial in trials}
    for rung, following in zip(plan.rungs, plan.rungs[1:], strict=False):
        arrived = plan.ranked([trial for trial in trials if trial.evaluated_at(rung)], rung)
        # Failed trials count as arrived, but promote the next best instead of themselves.
        promoted = [trial for trial in arrived if not trial.failed][: len(arrived) // plan.space.spec.rungs.factor]
        goals |= {trial.number: following for trial in promoted}
    idle = len(trials) == plan.trials and not any(trial.running for trial in trials)
    if idle and all(trial.failed or trial.evaluated_at(max(goals[trial.number], trial.until)) for trial in trials):
        return goals | _winner_goal(plan, trials)
    return goals


def _winner_goal(plan: SweepPlan, trials: Sequence[Trial]) -> dict[int, int]:
    """Promote the best trial by one rung when too few are left to promote one of `factor`.

    Without this a small sweep would end with no fully trained trial.
    """
    alive = [trial for trial in trials if not trial.failed]
    top = max(map(plan.last_rung, alive), default=0)
    if top in (0, plan.total):
        return {}
    winner = plan.ranked([trial for trial in alive if trial.evaluated_at(top)], top)[0]
    return {winner.number: plan.rungs[plan.rungs.index(top) + 1]}


def _sync_halving_goals(plan: SweepPlan, trials: Sequence[Trial]) -> dict[int, int]:
    """Promote the best 1/factor of a rung when all have arrived there, so that nothing depends on who was faster."""
    goals = {trial.number: plan.rungs[0] for trial in trials}
    left = list(trials)
    for rung, following in zip(plan.rungs, plan.rungs[1:], strict=False):
        if len(trials) < plan.trials or any(not trial.failed and not trial.evaluated_at(rung) for trial in left):
            break
        alive = [trial for trial in left if not trial.failed]
        # At least one, or a sweep of few trials would end with no full run.
        left = plan.ranked(alive, rung)[: max(1, len(alive) // plan.space.spec.rungs.factor)]
        goals |= {trial.number: following for trial in left}
    return goals


def _pbt_goals(plan: SweepPlan, trials: Sequence[Trial]) -> dict[int, int]:
    """Send the whole population to its next generation; `due_exploits` come in between."""
    at = _last_common_rung(plan, trials)
    return {trial.number: next((rung for rung in plan.rungs if rung > at), plan.total) for trial in trials}


def _last_common_rung(plan: SweepPlan, members: Sequence[Trial]) -> int:
    """Return the last rung at which all members that have not failed were evaluated, 0 before the first."""
    alive = [member for member in members if not member.failed]
    if len(members) < plan.trials or not alive:
        return 0
    return max((rung for rung in plan.rungs if all(member.evaluated_at(rung) for member in alive)), default=0)


_GOALS: dict[str, Callable[[SweepPlan, Sequence[Trial]], dict[int, int]]] = {
    "none": _full_length_goals,
    "asha": _asha_goals,
    "sync_halving": _sync_halving_goals,
    "pbt": _pbt_goals,
}


def _next_confirmation(plan: SweepPlan, trials: Sequence[Trial]) -> Segment | Literal["wait", "done"]:
    # The best of many trials is partly the luckiest: seeds that the search has not seen tell how much of its lead is luck.
    confirming = [trial for trial in trials if trial.role == "confirm"]
    due = [t for t in confirming if not t.failed and not t.running and not t.evaluated_at(plan.total)]
    if due:
        return Segment(due[0].number, plan.total)
    if missing_confirmations(plan, trials):
        return Segment(len(trials), plan.total)
    return WAIT if any(trial.running for trial in confirming) else DONE


def missing_confirmations(plan: SweepPlan, trials: Sequence[Trial]) -> list[tuple[dict[str, Any], int]]:
    """Return (values, seed) of the confirming trials that have not been started."""
    pair = trials_to_confirm(plan, trials) or ()
    started = [(trial.values, trial.seed) for trial in trials if trial.role == "confirm"]
    # The search has seen the seeds before these, and chosen by them.
    seeds = range(plan.seed + plan.repeats, plan.seed + plan.repeats + plan.confirm)
    wanted = [(trial.values, seed) for seed in seeds for trial in pair]
    return [one for one in wanted if one not in started]


def trials_to_confirm(plan: SweepPlan, trials: Sequence[Trial]) -> tuple[Trial, Trial] | None:
    """Return (the paper's trial, the best one), None where there is nothing to compare."""
    winner, paper = best_trial(plan, trials), paper_trial(plan, trials)
    if not plan.confirm or winner is None or paper is None or winner.values == paper.values:
        return None
    return paper, winner
