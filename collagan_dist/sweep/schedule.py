"""Which trial trains next, and how far: pure functions of what is known of all trials. Nothing here has a state.

A `Segment` is a stretch of one trial's training. It begins where the run stands and ends at a length in samples, evaluated and
saved; going on from there later costs no step twice. So a promotion is a segment, a pause is the time between two, and a sweep that was
killed is the same question asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from collagan_dist.sweep import search
from collagan_dist.sweep.space import METRICS, Space
from collagan_dist.sweep.trial import Trial

WAIT: Literal["wait"] = "wait"  # until a running segment has ended
DONE: Literal["done"] = "done"


@dataclass(frozen=True)
class Plan:
    """What a sweep is to do: `trials` in all, `total` samples of a whole run, the lengths at which trials are compared."""

    space: Space
    trials: int
    total: int
    rungs: tuple[int, ...]
    seed: int
    confirm: int = 0

    @property
    def metric(self) -> str:
        """The one by which trials are ranked; the first of several."""
        return self.space.metrics[0]

    def value(self, trial: Trial, samples: int) -> float:
        """How good a trial is at a length: larger is better."""
        scores = trial.at(samples) or {}
        sign = 1 if METRICS[self.metric][0] == "max" else -1
        return sign * scores[self.metric] if self.metric in scores else -float("inf")

    def compared(self, trial: Trial) -> int:
        """The furthest length at which a trial is compared with others, 0 before the first."""
        return max((rung for rung in self.rungs if trial.has(rung)), default=0)

    def ranked(self, trials: Sequence[Trial], samples: int) -> list[Trial]:
        """Best first; equals by number."""
        return sorted(trials, key=lambda trial: (-self.value(trial, samples), trial.number))


@dataclass(frozen=True)
class Segment:
    """Train `number` until `samples`. A number that no trial has yet begins one."""

    number: int
    samples: int


@dataclass(frozen=True)
class Exchange:
    """A member of PBT's population takes another's networks at a length, and `values` of its own from there."""

    number: int
    donor: int
    at: int
    values: dict[str, Any]


def next_segment(plan: Plan, trials: Sequence[Trial]) -> Segment | Literal["wait", "done"]:
    """What to begin now, beside what runs. `trials` are all there are, by number."""
    searched = [trial for trial in trials if trial.role != "confirm"]
    goals = _GOALS[plan.space.spec.scheduler](plan, searched)
    # What was begun is finished before what others did since counts.
    due = [Segment(t.number, max(goals.get(t.number, 0), t.until)) for t in searched if _alive(t) and not t.running]
    due = [segment for segment in due if not trials[segment.number].has(segment.samples) and segment.samples]
    if due:  # the one that is promoted furthest
        return min(due, key=lambda segment: (-segment.samples, segment.number))
    if len(searched) < plan.trials:
        return Segment(len(trials), plan.rungs[0])
    if any(trial.running for trial in searched):
        return WAIT
    return _confirmation(plan, trials)


def best(plan: Plan, trials: Sequence[Trial]) -> Trial | None:
    """Of those that were trained furthest, the one whose metric is best."""
    scored = [trial for trial in trials if trial.role != "confirm" and _alive(trial)]
    furthest = max(map(plan.compared, scored), default=0)
    return next(iter(plan.ranked([trial for trial in scored if trial.has(furthest)], furthest)), None)


def of_the_paper(trials: Sequence[Trial]) -> Trial | None:
    """The trial of the paper's λ."""
    return next((trial for trial in trials if trial.role == "paper"), None)


def front(plan: Plan, trials: Sequence[Trial]) -> list[Trial]:
    """Whole runs that no other beats in every metric (the Pareto front)."""
    signs = [1 if mode == "max" else -1 for mode in plan.space.modes]
    points = []
    for trial in trials:
        scores = trial.at(plan.total) or {}
        if trial.role != "confirm" and all(name in scores for name in plan.space.metrics):
            points.append((trial, [sign * scores[name] for sign, name in zip(signs, plan.space.metrics, strict=True)]))
    return [trial for trial, mine in points if not any(_beats(other, mine) for _, other in points)]


def expected_samples(plan: Plan) -> float:
    """Samples that the search trains in all, if nothing fails."""
    kind, factor = plan.space.spec.scheduler, plan.space.spec.rungs.factor
    if kind in ("none", "pbt"):
        return float(plan.trials * plan.total)
    left, before, whole = plan.trials, 0, 0.0
    for rung in plan.rungs:
        whole += left * (rung - before)
        left, before = max(1, left // factor), rung
    return whole


def exchanges(plan: Plan, trials: Sequence[Trial]) -> list[Exchange]:
    """What PBT is to do before its population goes on (Jaderberg 2017, truncation selection); [] where nothing is due."""
    members = [trial for trial in trials if trial.role != "confirm"]
    at = _generation(plan, members)
    # Once anyone was sent on from there, all that was to be exchanged is.
    if plan.space.spec.scheduler != "pbt" or not 0 < at < plan.total or any(member.until > at for member in members):
        return []
    alive = plan.ranked([member for member in members if _alive(member)], at)
    count = max(1, int(len(alive) * plan.space.spec.pbt.quantile)) if len(alive) > 1 else 0
    found = []
    for member in alive[len(alive) - count :]:
        if not any(entry["at"] == at for entry in member.lineage):
            generator = search.rng(plan.seed, at, member.number)
            donor = alive[int(generator.integers(count))]
            found.append(Exchange(member.number, donor.number, at, _explored(plan.space, donor.values, generator)))
    return found


def _explored(space: Space, values: dict[str, Any], generator: Any) -> dict[str, Any]:
    """Another's values, each moved a little or drawn anew."""
    drawn = search.draw(space, generator)
    moved: dict[str, Any] = {}
    for dimension in space.dimensions:
        anew = generator.random() < space.spec.pbt.resample
        moved |= {key: drawn[key] for key in dimension.keys} if anew else dimension.moved(values, generator)
    return moved


def _all_the_way(plan: Plan, trials: Sequence[Trial]) -> dict[int, int]:
    return {trial.number: plan.total for trial in trials}


def _asha(plan: Plan, trials: Sequence[Trial]) -> dict[int, int]:
    """A trial goes on from a rung as soon as it is in the best 1/factor of those that have come there (Li 2020)."""
    factor = plan.space.spec.rungs.factor
    goals = {trial.number: plan.rungs[0] for trial in trials}
    for rung, following in zip(plan.rungs, plan.rungs[1:], strict=False):
        there = [trial for trial in trials if trial.has(rung)]
        for trial in [one for one in plan.ranked(there, rung) if _alive(one)][: len(there) // factor]:
            goals[trial.number] = max(goals[trial.number], following)
    at_rest = len(trials) == plan.trials and not any(trial.running for trial in trials)
    if at_rest and all(not _alive(trial) or trial.has(max(goals[trial.number], trial.until)) for trial in trials):
        return goals | _winner_goes_on(plan, trials)
    return goals


def _winner_goes_on(plan: Plan, trials: Sequence[Trial]) -> dict[int, int]:
    """At the end, with too few left to promote one of `factor`: the best goes on, so that the sweep has a whole run."""
    alive = [trial for trial in trials if _alive(trial) and trial.reached]
    reached = [rung for rung in plan.rungs if any(trial.has(rung) for trial in alive)]
    if not alive or not reached or reached[-1] == plan.rungs[-1]:
        return {}
    top = plan.ranked([trial for trial in alive if trial.has(reached[-1])], reached[-1])[0]
    return {top.number: plan.rungs[len(reached)]}


def _sync_halving(plan: Plan, trials: Sequence[Trial]) -> dict[int, int]:
    """All come to a rung before the best 1/factor of them goes on: nothing depends on who was faster."""
    goals = {trial.number: plan.rungs[0] for trial in trials}
    left = list(trials)
    for rung, following in zip(plan.rungs, plan.rungs[1:], strict=False):
        if len(trials) < plan.trials or any(_alive(trial) and not trial.has(rung) for trial in left):
            break
        alive = [trial for trial in left if _alive(trial)]
        left = plan.ranked(alive, rung)[: max(1, len(alive) // plan.space.spec.rungs.factor)]
        goals |= {trial.number: following for trial in left}
    return goals


def _pbt(plan: Plan, trials: Sequence[Trial]) -> dict[int, int]:
    """The population goes from generation to generation together; `exchanges` come between."""
    at = _generation(plan, trials)
    return {trial.number: next((rung for rung in plan.rungs if rung > at), plan.total) for trial in trials}


def _generation(plan: Plan, members: Sequence[Trial]) -> int:
    """The last length that all living members have come to, 0 before the first."""
    alive = [member for member in members if _alive(member)]
    if len(members) < plan.trials or not alive:
        return 0
    return max((rung for rung in plan.rungs if all(member.has(rung) for member in alive)), default=0)


_GOALS: dict[str, Callable[[Plan, Sequence[Trial]], dict[int, int]]] = {
    "none": _all_the_way,
    "asha": _asha,
    "sync_halving": _sync_halving,
    "pbt": _pbt,
}


def _confirmation(plan: Plan, trials: Sequence[Trial]) -> Segment | Literal["wait", "done"]:
    """The paper's λ and the best of the search once more, with other seeds: a winner is partly lucky."""
    again = [trial for trial in trials if trial.role == "confirm"]
    due = [trial for trial in again if _alive(trial) and not trial.running and not trial.has(plan.total)]
    if due:
        return Segment(due[0].number, plan.total)
    if unconfirmed(plan, trials):
        return Segment(len(trials), plan.total)
    return WAIT if any(trial.running for trial in again) else DONE


def unconfirmed(plan: Plan, trials: Sequence[Trial]) -> list[tuple[dict[str, Any], int]]:
    """(values, seed) of the trials that confirm and have not been begun."""
    pair = to_confirm(plan, trials) or ()
    begun = [(trial.values, trial.seed) for trial in trials if trial.role == "confirm"]
    wanted = [(one.values, plan.seed + number) for number in range(1, plan.confirm + 1) for one in pair]
    return [one for one in wanted if one not in begun]


def to_confirm(plan: Plan, trials: Sequence[Trial]) -> tuple[Trial, Trial] | None:
    """(the paper's trial, the best one); None where there is nothing to compare."""
    winner, paper = best(plan, trials), of_the_paper(trials)
    if not plan.confirm or winner is None or paper is None or winner.values == paper.values or winner.failure:
        return None
    return paper, winner


def _alive(trial: Trial) -> bool:
    return trial.failure is None


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    """At least as good in every metric, and better in one."""
    return all(a >= b for a, b in zip(one, other, strict=True)) and list(one) != list(other)
