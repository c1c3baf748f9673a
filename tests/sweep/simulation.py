"""A simulated sweep without training: segments run on some slots, end in any order, fail, and are lost when the sweep is killed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from collagan_dist.errors import ClusterError
from collagan_dist.sweep import ranking, schedule, search
from collagan_dist.sweep.configurations import members
from collagan_dist.sweep.new_trial import new_trial
from collagan_dist.sweep.schedule import DONE, WAIT, Exploit, Segment, SweepPlan
from collagan_dist.sweep.trial import Trial, without_retryable_failure
from tests.sweep.spaces import space

SPACE = "space: {loss.weights.*.rec: {loguniform: [1, 1000]}, optim.generator.lr: {loguniform: [1e-5, 0.1]}}"
RUNGS = (640, 1920, 5760, 17280)
GENERATIONS = (1280, 2560, 3840, 4096)


def plan(
    scheduler: str, trials: int, rungs: tuple[int, ...] = (), confirm: int = 0, seed: int = 0, metric: str = "psnr", more: str = ""
) -> SweepPlan:  # fmt: skip
    head = f"metric: {metric}\nscheduler: {scheduler}\n{more}\n"
    lengths = rungs or {"none": RUNGS[-1:], "pbt": GENERATIONS}.get(scheduler, RUNGS)
    return SweepPlan(space(head + SPACE), trials, lengths[-1], lengths, seed, confirm)


SCHEDULERS = ("none", "asha", "sync_halving", "pbt")
PLANS = {
    (name, factor): plan(name, 1, more=f"rungs: {{factor: {factor}}}") for name in SCHEDULERS for factor in (2, 3, 4)
}  # a space is validated once; only numbers change in `a_plan`


def a_plan(name: str, trials: int, factor: int = 3, confirm: int = 0, seed: int = 0) -> SweepPlan:
    return replace(PLANS[name, factor], trials=trials, confirm=confirm, seed=seed)


def with_spec(made: SweepPlan, **changes: object) -> SweepPlan:
    """The same plan with other keys of SPACE.yaml, without validating it again."""
    changed = copy.copy(made.space)
    changed.spec = made.space.spec.model_copy(update=changes)
    return replace(made, space=changed)


_CHOICES = ", ".join(f"{number}.0" for number in range(1, 100))


def a_grid(scheduler: str, trials: int, **spec: object) -> SweepPlan:
    """A plan whose values cost nothing to find, for many simulations; the base configuration is the first trial."""
    text = f"metric: psnr\nsearch: grid\nspace: {{loss.weights.inpainting.rec: {{choice: [{_CHOICES}]}}}}"
    if "grid" not in _GRID:
        _GRID["grid"] = SweepPlan(space(text), trials, RUNGS[-1], RUNGS, 7)
        # Validated once: none of the searched values changes the batch, which is all that a new trial asks for.
        config = _GRID["grid"].space.config({})
        _GRID["grid"].space.config = lambda values, *more: config  # type: ignore[method-assign]
    rungs = RUNGS[-1:] if scheduler == "none" else RUNGS[::3]
    return replace(with_spec(_GRID["grid"], scheduler=scheduler, **spec), trials=trials, rungs=rungs)


_GRID: dict[str, SweepPlan] = {}


def stored(trial: Trial) -> Trial:
    """As a new start reads it: what ran is not running, and how far it came is in its checkpoints."""
    saved = json.loads(json.dumps({"values": trial.values, "notes": trial.notes, "lineage": trial.lineage}))
    return without_retryable_failure(replace(trial, **saved | {"lineage": tuple(saved["lineage"]), "running": False}))


@dataclass
class Simulation:
    """`failing` is the share of segments that end with NaN, as a function of trial and length; `lost` of those that the cluster ends for
    good and `killed` of moments at which the sweep is killed are by `chance`, as is the order in which segments end."""

    plan: SweepPlan
    chance: int = 0
    slots: int = 1
    failing: float = 0.0
    lost: float = 0.0
    killed: float = 0.0
    alike: bool = False  # all results are equal
    objective: Callable[[Trial, int], dict[str, float]] | None = (
        None  # the metrics of a trial at a length, instead of `score`
    )
    trials: list[Trial] = field(default_factory=list)
    segments: list[tuple[int, int, int]] = field(default_factory=list)  # (trial, from, to), those that ended well
    asked: list[Segment] = field(default_factory=list)
    exchanged: list[Exploit] = field(default_factory=list)
    running: dict[int, Segment] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.chance)

    def run(self) -> Simulation:
        while self._fill():
            if self.dice.random() < self.killed:
                self._kill()
            elif self.running:
                self._end(self.dice.choice(sorted(self.running)))
        assert not self.running
        assert schedule.next_segment(self.plan, self.trials) == DONE
        return self

    def score(self, number: int, samples: int) -> float:
        if self.alike:
            return 1.0
        own, noise = (search.generator_for(self.plan.seed, 77, *key).random() for key in ((number,), (number, samples)))
        return float(own + 0.5 * noise + samples / 1e5)

    def fails(self, number: int, samples: int) -> bool:
        return bool(search.generator_for(self.plan.seed, 78, number, samples).random() < self.failing)

    @property
    def trained(self) -> int:
        return sum(to - start for _, start, to in self.segments)

    @property
    def decided(self) -> dict[tuple[int, int], tuple]:
        """What became of each seed of each configuration, by the configuration's place among all."""
        groups = members(self.trials).values()
        return {
            (n, t.seed): (t.values, t.role, t.until, t.failure, t.results)
            for n, group in enumerate(groups)
            for t in group
        }

    @property
    def searched(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.role != "confirm"]

    def reached(self, samples: int) -> set[int]:
        """Numbers of those that came to a length."""
        return {trial.number for trial in self.searched if trial.evaluated_at(samples)}

    def _fill(self) -> bool:
        """Begin what there is room for, as the driver does; whether the sweep goes on."""
        while len(self.running) < self.slots:
            if not self._exchange():
                continue
            segment = schedule.next_segment(self.plan, self.trials)
            if segment == DONE:
                assert not self.running
                return False
            if segment == WAIT:
                assert self.running
                break
            self._begin(segment)
        return True

    def _exchange(self) -> bool:
        """Whether all were made."""
        for exchange in schedule.due_exploits(self.plan, self.trials):
            member, donor = self.trials[exchange.number], self.trials[exchange.donor]
            assert not member.running and not donor.running and member.failure is donor.failure is None
            assert donor.evaluated_at(exchange.at) and member.evaluated_at(exchange.at) and member.until <= exchange.at
            entry = {"at": exchange.at, "from": exchange.donor, "values": member.values}
            self.trials[exchange.number] = replace(member, values=exchange.values, lineage=(*member.lineage, entry))
            self.exchanged.append(exchange)
            if self.dice.random() < self.killed:
                self._kill()
                return False
        return True

    def _begin(self, segment: Segment) -> None:
        if segment.number == len(self.trials):
            self.trials.append(new_trial(self.plan, self.trials))
        trial = self.trials[segment.number]
        assert not trial.running and trial.failure is None and trial.number == segment.number
        assert trial.steps(segment.samples) * trial.batch > trial.reached  # never back, nothing twice
        assert len(members(self.trials)) <= self.plan.trials
        self.asked.append(segment)
        self.running[segment.number] = segment
        self.trials[segment.number] = replace(trial, until=segment.samples, running=True)

    def _end(self, number: int) -> None:
        segment, trial = self.running.pop(number), replace(self.trials[number], running=False)
        to = trial.steps(segment.samples) * trial.batch
        if self.fails(number, segment.samples):
            trial = replace(trial, failure=(6, "NaN"))
        elif self.dice.random() < self.lost:
            trial = replace(trial, failure=(ClusterError.exit_code, "gone"))
        else:
            self.segments.append((number, trial.reached, to))
            sign = 1 if self.plan.space.modes[0] == "max" else -1
            scores = {name: sign * self.score(number, to) for name in self.plan.space.metrics}
            trial = replace(
                trial, results={**trial.results, to: self.objective(trial, to) if self.objective else scores}
            )
        self.trials[number] = trial

    def _kill(self) -> None:
        self.trials, self.running = [stored(trial) for trial in self.trials], {}


def chosen(scheduler: str, trials: int, repeats: int, noise: float, seed: int) -> tuple[int, float]:
    """A sweep over configurations of standard normal quality, seen with noise that each training seed has for good.

    Returns how many are truly better than the chosen one (0: it is the best), and the true quality of that.
    """
    truth = search.generator_for(seed, 1).normal(size=trials)

    def objective(trial: Trial, samples: int) -> dict[str, float]:
        place = trial.configuration // repeats
        return {"psnr": float(truth[place] + noise * search.generator_for(seed, 2, trial.seed, place).normal())}

    sweep = Simulation(a_grid(scheduler, trials, repeats=repeats), objective=objective).run()
    best = schedule.best_trial(sweep.plan, sweep.trials)
    quality = truth[best.number // repeats]
    return int((truth > quality).sum()), float(quality)


def front_kept(scheduler: str, trials: int, metric: tuple[str, ...], noise: float, seed: int) -> float:
    """A sweep over configurations of two qualities that contradict each other; the share of their true Pareto front trained to the end.

    It ranks by `metric`: both ("psnr", "landmark_error"), or the first alone.
    """
    rng = search.generator_for(seed, 3)
    trade, loss = rng.uniform(size=trials), rng.exponential(0.2, size=trials)
    truth = np.stack([trade - loss, (1 - trade**2) ** 0.5 - loss], axis=1)  # both larger is better
    front = {place for place, rank in enumerate(ranking.pareto_ranks(truth)) if rank == 0}

    def objective(trial: Trial, samples: int) -> dict[str, float]:
        seen = truth[trial.number] + noise * search.generator_for(seed, 4, trial.number, samples).normal(size=2)
        return {"psnr": float(seen[0]), "landmark_error": float(-seen[1])}

    sweep = Simulation(a_grid(scheduler, trials, metric=metric), objective=objective).run()
    return len(front & sweep.reached(RUNGS[-1])) / len(front)
