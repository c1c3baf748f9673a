import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collagan_dist.sweep import schedule, search
from collagan_dist.sweep.schedule import Goal
from collagan_dist.sweep.space_spec import Bounds, Pbt
from collagan_dist.sweep.trial import Trial
from tests.sweep.simulation import (
    GENERATIONS,
    PLANS,
    RUNGS,
    SCHEDULERS,
    Simulation,
    a_plan,
    front_kept,
    plan,
    stored,
    with_spec,
)

a_sweep = st.builds(
    lambda name, factor, trials, confirm, seed, **more: Simulation(a_plan(name, trials, factor, confirm, seed), **more),
    name=st.sampled_from(SCHEDULERS), factor=st.integers(2, 4), trials=st.integers(1, 20), confirm=st.integers(0, 2), seed=st.integers(0, 99),
    chance=st.integers(0, 99), slots=st.integers(1, 6), failing=st.sampled_from([0.0, 0.1, 0.5, 1.0]), lost=st.sampled_from([0.0, 0.1]),
    killed=st.sampled_from([0.0, 0.1, 0.3]), alike=st.booleans(),
)  # fmt: skip


@given(a_sweep)
@settings(max_examples=120, deadline=None)
def test_every_sweep_ends(sweep):
    """Whatever fails, is lost or killed: all trials, nothing twice, the best one known. Started again it retries what the cluster took.

    The simulation itself holds that no segment is asked for twice, goes back, or is of a trial that failed.
    """
    sweep.run()
    made, trials = sweep.plan, sweep.trials
    assert len(sweep.searched) == made.trials and [trial.number for trial in trials] == list(range(len(trials)))
    for _, group in itertools.groupby(sorted(sweep.segments), key=lambda segment: segment[0]):
        segments = list(group)
        ends = [0] + [to for _, _, to in segments]
        assert ends == sorted(set(ends)) and [start for _, start, _ in segments] == ends[:-1]
    assert made.scheduler == "pbt" or not sweep.exchanged
    alive = [trial for trial in sweep.searched if trial.failure is None]
    assert all(trial.until == 0 or trial.evaluated_at(trial.until) for trial in alive)
    scores = [made.scores(trial, made.total) for trial in alive if trial.evaluated_at(made.total)]
    best = schedule.best_trial(made, trials)
    assert bool(best) == bool(alive) and (best is None or made.scores(best, made.total) == max(scores))
    lost = any(trial.failure and trial.failure[0] == 4 for trial in trials)
    count, sweep.trials, sweep.lost = len(sweep.segments), [stored(trial) for trial in trials], 0.0
    sweep.run()
    assert lost or (len(sweep.segments) == count and sweep.trials == trials)


def halving(sweep: Simulation, factor: int) -> tuple[set[tuple[int, int]], int]:
    """Successive halving (Jamieson 2016) by itself: (trial, length) of all that is trained well, the best trial.

    Who fails makes room for the next best: it is all done again as if the trial had never been.
    """
    gone, trained = set[int](), set[tuple[int, int]]()
    while True:
        left, failed = [number for number in range(sweep.plan.trials) if number not in gone], set[int]()
        for rung in sweep.plan.rungs:
            failed = {number for number in left if sweep.fails(number, rung)}
            trained |= {(number, rung) for number in left if number not in failed}
            if failed:
                break
            left.sort(key=lambda number: -sweep.score(number, rung))
            left = left[: max(1, len(left) // factor)]
        gone |= failed
        if not failed:
            return trained, left[0] if left else -1


@pytest.mark.parametrize("failing", [0.0, 0.15, 0.4, 1.0])
def test_sync_halving_repeats_exactly(failing):
    """Any order, slots, kills and failures: the same trials come to the same lengths, those of the lines above, and one is best."""
    for seed, (trials, factor) in enumerate([(27, 3), (20, 3), (9, 2), (2, 3), (21, 3), (13, 4)]):
        made = a_plan("sync_halving", trials, factor, seed=seed)
        sweeps = [
            Simulation(made, chance, slots, failing, killed=killed).run()
            for chance, (slots, killed) in enumerate([(1, 0.0), (1, 0.2), (3, 0.0), (8, 0.1), (40, 0.0)])
        ]
        expected, winner = halving(sweeps[0], factor)
        for sweep in sweeps:
            assert sorted((number, to) for number, _, to in sweep.segments) == sorted(expected)
            assert sweep.trials == sweeps[0].trials
            best = schedule.best_trial(made, sweep.trials)
            assert best.number == winner if best else winner == -1


class Asha:
    """`get_job` of Algorithm 2 (Li 2020): a promotable trial of the highest rung that has one, else a new one at the bottom."""

    def __init__(self, factor: int, rungs: int) -> None:
        self.factor, self.scores = factor, [dict[int, float]() for _ in range(rungs)]
        self.promoted: list[set[int]] = [set() for _ in range(rungs)]
        self.begun = 0

    def get_job(self, trials: int) -> tuple[int, int] | None:
        for k in reversed(range(len(self.scores) - 1)):
            rung = self.scores[k]
            top = sorted(rung, key=lambda number: -rung[number])[: len(rung) // self.factor]
            promotable = [number for number in top if number not in self.promoted[k]]
            if promotable:
                self.promoted[k].add(promotable[0])
                return promotable[0], k + 1
        if self.begun == trials:
            return None
        self.begun += 1
        return self.begun - 1, 0


@pytest.mark.parametrize(
    ("trials", "factor", "seed"), [(30, 3, 0), (40, 2, 1), (64, 4, 2), (27, 3, 3), (5, 3, 4), (2, 2, 5)]
)
def test_asha_with_one_slot_is_li_2020(trials, factor, seed):
    """Every job in the paper's order, killed or not; after the last, the best goes on to a full run."""
    for killed in (0.0, 0.2):
        sweep = Simulation(a_plan("asha", trials, factor, seed=seed), chance=seed, killed=killed).run()
        theirs, jobs = Asha(factor, len(RUNGS)), []
        while (job := theirs.get_job(trials)) is not None:
            number, k = job
            theirs.scores[k][number] = sweep.score(number, RUNGS[k])
            jobs.append((number, RUNGS[k]))
        mine = [(number, to) for number, _, to in sweep.segments]
        assert mine[: len(jobs)] == jobs
        after = mine[len(jobs) :]
        assert len({number for number, _ in after}) <= 1 and len(after) < len(RUNGS)
        assert len(sweep.reached(RUNGS[-1])) >= 1


@given(a_sweep)
@settings(max_examples=40, deadline=None)
def test_asha_promotes_only_the_best(sweep):
    """On any number of slots, whatever fails: at the end all the best 1/factor of a rung that live were promoted from it."""
    sweep.plan, sweep.lost, sweep.alike = a_plan("asha", sweep.plan.trials, seed=sweep.plan.seed), 0.0, False
    sweep.run()
    for rung, following in itertools.pairwise(RUNGS):
        there = sorted(sweep.reached(rung), key=lambda number: -sweep.score(number, rung))
        promoted = {trial.number for trial in sweep.searched if trial.until >= following}
        best = [number for number in there if sweep.trials[number].failure is None][: len(there) // 3]
        assert set(best) <= promoted <= set(there)


def test_the_furthest_promotion_comes_first():
    lengths = [RUNGS[:2] if number < 3 else RUNGS[:1] for number in range(12)]
    trials = results(*({end: -float(number) for end in ends} for number, ends in enumerate(lengths)))
    trials = [replace(trial, until=ends[-1]) for trial, ends in zip(trials, lengths, strict=True)]
    assert schedule.next_segment(a_plan("asha", 13), trials) == schedule.Segment(0, RUNGS[2])
    trials[0] = replace(trials[0], until=RUNGS[2], running=True)
    assert schedule.next_segment(a_plan("asha", 13), trials) == schedule.Segment(3, RUNGS[1])


def test_an_interrupted_promotion_is_finished_first():
    """A segment that a kill broke off is done first, though three better ones have come to its rung since."""
    trials = [replace(trial, until=RUNGS[0]) for trial in results(*({RUNGS[0]: float(n)} for n in range(4)))]
    trials[0] = replace(trials[0], until=RUNGS[1])
    trials[3] = replace(trials[3], until=RUNGS[1], running=True)
    assert schedule.next_segment(a_plan("asha", 4), trials) == schedule.Segment(0, RUNGS[1])


# PBT


def members(sweep: Simulation, at: int) -> list[int]:
    """Those that had come to a generation alive, best first."""
    there = [trial for trial in sweep.trials if trial.evaluated_at(at)]
    return [t.number for t in sorted(there, key=lambda t: (-sweep.score(t.number, t.steps(at) * t.batch), t.number))]


@pytest.mark.parametrize(
    ("trials", "quantile", "count"),
    [(8, 0.25, 2), (12, 0.25, 3), (7, 0.25, 1), (10, 0.5, 5), (4, 0.1, 1), (2, 0.5, 1), (1, 0.5, 0)],
)
def test_pbt_replaces_the_worst_by_the_best(trials, quantile, count):
    """At every generation but the last: so many of the worst take over from some of as many best, each with values of its own."""
    made = plan("pbt", trials, more=f"pbt: {{quantile: {quantile}}}")
    sweep = Simulation(made, slots=3, chance=2).run()
    assert len(sweep.exchanged) == count * (len(GENERATIONS) - 1)
    donors = set()
    for at in GENERATIONS[:-1]:
        ranked, now = members(sweep, at), [one for one in sweep.exchanged if one.at == at]
        assert sorted(one.number for one in now) == sorted(ranked[len(ranked) - count :])
        assert {one.donor for one in now} <= set(ranked[:count])
        donors |= {ranked.index(one.donor) for one in now}
        for one in now:
            assert one.values != sweep.trials[one.donor].values and set(one.values) == set(made.space.keys)
            made.space.config(one.values)
    assert count < 3 or len(donors) > 1  # not always the first


@pytest.mark.parametrize("failing", [0.0, 0.1])
def test_pbt_repeats_exactly(failing):
    for seed in range(4):
        made = a_plan("pbt", 12, seed=seed)
        first = Simulation(made, failing=failing).run()
        assert len(first.exchanged) >= 4
        for chance, (slots, killed) in enumerate([(1, 0.3), (5, 0.0), (5, 0.3), (20, 0.5)]):
            again = Simulation(made, chance, slots, failing, killed=killed).run()
            assert again.trials == [replace(trial, restarts=0) for trial in first.trials]
            assert sorted(again.exchanged, key=repr) == sorted(first.exchanged, key=repr)


@pytest.mark.parametrize("resample", [0, 1])
def test_pbt_explores(resample):
    """With resample 0 every value is a step away from the donor's, with 1 it is drawn anew."""
    sweep = Simulation(plan("pbt", 8, more=f"pbt: {{resample: {resample}}}")).run()
    donors = {trial.number: [*(e["values"] for e in trial.lineage), trial.values] for trial in sweep.trials}
    bounds = {key: one for dimension in sweep.plan.space.dimensions for key, one in dimension.describe().items()}
    for one in sweep.exchanged:
        steps = []
        for key, value in one.values.items():
            near = [abs(np.log(value / values[key]) / np.log(1.2)) for values in donors[one.donor]]
            inside = bounds[key]["low"] < value < bounds[key]["high"]
            steps.append(min(near, key=lambda x: abs(x - 1)) if inside else 1.0)
        assert np.allclose(steps, 1) == (resample == 0)


# What comes of it


def results(*curves: dict[int, float], metric: str = "psnr") -> list[Trial]:
    scores = [{samples: {metric: value} for samples, value in curve.items()} for curve in curves]
    return [Trial(number, "search", {}, 0, 64, results=one) for number, one in enumerate(scores)]


ONE, TWO, THREE = RUNGS[:3]


@pytest.mark.parametrize(
    ("number", "changes", "best"),
    [
        (0, {}, 2),
        (2, {"failure": (6, "NaN")}, 1),
        (2, {"role": "confirm", "results": {THREE: {"psnr": 9.0}}}, 1),
        (2, {"results": {TWO: {"ssim": 9.0}}}, 1),  # no number
        (0, {"results": {ONE: {"psnr": 9.0}, TWO + 64: {"psnr": 9.0}}}, 2),  # evaluated between rungs
        (1, {"results": {TWO: {"psnr": 4.0}}}, 1),  # the first of equal ones
    ],
)
def test_the_best_is_of_those_trained_furthest(number, changes, best):
    trials = results({ONE: 9.0}, {ONE: 5.0, TWO: 3.0}, {ONE: 4.0, TWO: 4.0}, {ONE: 1.0, TWO: 2.0})
    trials[number] = replace(trials[number], **changes)
    assert schedule.best_trial(a_plan("asha", 4), trials) == trials[best]


def test_the_best_error_is_the_smallest():
    trials = results({ONE: 9.0}, {ONE: 5.0}, {ONE: 7.0}, metric="landmark_error")
    errors = plan("asha", 9, metric="landmark_error")
    assert schedule.best_trial(errors, trials) == trials[1]
    assert [trial.number for trial in errors.ranked(trials, ONE)] == [1, 2, 0]
    sweep = Simulation(errors, slots=2).run()
    assert sweep.reached(TWO) >= set(sorted(range(9), key=lambda n: -sweep.score(n, ONE))[:3])


def test_a_length_ends_at_the_first_step_that_is_no_shorter():
    trial = Trial(0, "search", {}, 0, 64, results={128: {"psnr": 1.0}})
    assert trial.steps(100) == 2 and [trial.evaluated_at(at) for at in (64, 65, 100, 129)] == [False, True, True, False]
    for name in ("asha", "sync_halving"):
        for rungs in ((100, 300, 1000), (1, 3, 9, 27, 81), (63, 64, 65)):
            made = replace(PLANS[name, 3], trials=9, rungs=rungs, total=rungs[-1])
            sweep = Simulation(made, slots=2).run()
            assert max(to for _, _, to in sweep.segments) == -(-rungs[-1] // 64) * 64


# Several metrics and constraints


def torn(trial: Trial, samples: int) -> dict[str, float]:
    """Two metrics that contradict each other, of every trial its own."""
    first, loss, noise = search.generator_for(9, trial.number, samples).uniform(size=3)
    return {"psnr": float(first - loss / 3), "landmark_error": float(first**2 + loss + noise / 10)}


def a_torn(name: str, trials: int, **spec: object) -> schedule.SweepPlan:
    return with_spec(a_plan(name, trials), metric=("psnr", "landmark_error"), **spec)


def dominated(one: dict[str, float], others: list[dict[str, float]]) -> bool:
    """By any of the others, and no constraint: psnr is to be large, landmark_error small."""
    a, b = one["psnr"], one["landmark_error"]
    return any(
        (o["psnr"] > a and o["landmark_error"] <= b) or (o["psnr"] >= a and o["landmark_error"] < b) for o in others
    )


@pytest.mark.parametrize("name", SCHEDULERS)
def test_several_metrics_end_and_resume(name):
    """Whatever is lost or killed; what repeats exactly with one metric does so with two."""
    sweeps = []
    for chance, (slots, killed) in enumerate([(1, 0.0), (3, 0.3), (8, 0.1)]):
        sweep = Simulation(a_torn(name, 12), chance, slots, 0.1, killed=killed, objective=torn).run()
        sweeps.append(sweep.trials)
        front = schedule.pareto_front(sweep.plan, sweep.trials)
        best, full = (
            schedule.best_trial(sweep.plan, sweep.trials),
            sweep.reached(RUNGS[-1] if name != "pbt" else GENERATIONS[-1]),
        )
        assert front and {trial.number for trial in front} <= full and best in front
        length = sweep.plan.total
        assert best.metrics_at(length)["psnr"] == max(trial.metrics_at(length)["psnr"] for trial in front)
    if name in ("sync_halving", "pbt", "none"):
        assert all([replace(t, restarts=0) for t in trials] == sweeps[0] for trials in sweeps)


@pytest.mark.parametrize("seed", range(3))
def test_halving_promotes_the_front(seed):
    """At each rung no trial is left behind that dominates one that goes on; a first front that fits goes on as a whole."""
    sweep = Simulation(replace(a_torn("sync_halving", 27), seed=seed), objective=torn).run()
    for rung, following in itertools.pairwise(RUNGS):
        there, on = sweep.reached(rung), sweep.reached(following)
        seen = {number: sweep.trials[number].metrics_at(rung) for number in there}
        for number in on:
            assert not dominated(seen[number], [seen[other] for other in there - on])
        front = {number for number in there if not dominated(seen[number], list(seen.values()))}
        assert len(on) == max(1, len(there) // 3) and (front <= on or on <= front)


def test_the_front_is_kept_by_ranking_by_all_metrics():
    """More of the true Pareto front is trained to the end than by the first metric; benchmarks/search.py has the figures."""
    by_first, by_both = (
        sum(front_kept("sync_halving", 27, metric, 0.1, seed) for seed in range(15)) / 15
        for metric in (("psnr",), ("psnr", "landmark_error"))
    )
    assert by_both > by_first + 0.05


def test_pbt_replaces_dominated_members():
    sweep = Simulation(a_torn("pbt", 8, pbt=Pbt(quantile=0.25)), objective=torn).run()
    assert len(sweep.exchanged) == 2 * (len(GENERATIONS) - 1)
    for at in GENERATIONS[:-1]:
        now, seen = [one for one in sweep.exchanged if one.at == at], [torn(trial, at) for trial in sweep.trials]
        worst = {one.number for one in now}
        for one in now:
            assert not dominated(seen[one.donor], seen)
            others = [number for number in range(8) if number not in worst]
            assert not any(dominated(seen[other], [seen[one.number]]) for other in others)


LIMIT = {"landmark_error": Bounds(max=0.8)}


@pytest.mark.parametrize("metrics", [("psnr",), ("psnr", "landmark_error")])
def test_those_that_break_a_constraint_come_behind(metrics):
    """Behind all that keep it, the least violation first, promoted only where too few keep it, and never best or on the front."""
    made = with_spec(a_plan("sync_halving", 27), metric=metrics, constraints=LIMIT)
    sweep = Simulation(made, objective=torn).run()
    for rung, following in itertools.pairwise(RUNGS):
        there, on = sweep.reached(rung), sweep.reached(following)
        beyond = {number: max(0.0, sweep.trials[number].metrics_at(rung)["landmark_error"] - 0.8) for number in there}
        assert max(beyond[number] for number in on) <= min(
            (beyond[number] for number in there - on), default=0
        ) or not any(beyond[number] for number in on)
    kept = [trial for trial in sweep.trials if trial.reached and torn(trial, trial.reached)["landmark_error"] <= 0.8]
    furthest = max(trial.reached for trial in kept)
    expected = max((t for t in kept if t.reached == furthest), key=lambda t: torn(t, furthest)["psnr"])
    assert schedule.best_trial(made, sweep.trials) == expected
    assert all(trial in kept for trial in schedule.pareto_front(made, sweep.trials))


def test_the_size_of_a_violation_is_relative_to_its_bound():
    """0.9 of at most 0.8 is an eighth too much, 10 of at least 20 a half; without a number nothing is kept."""
    bounds = {"landmark_error": Bounds(max=0.8), "psnr": Bounds(min=20.0, max=40.0), "dice": Bounds(max=0)}
    made = with_spec(a_plan("none", 4), constraints=bounds)
    trials = [
        Trial(n, "search", {}, 0, 64, results={made.total: one})
        for n, one in enumerate([
            {"psnr": 10.0, "landmark_error": 0.5, "dice": 0.0}, {"psnr": 30.0, "landmark_error": 0.9, "dice": 0.0},
            {"psnr": 39.0, "landmark_error": 0.8, "dice": -1.0}, {"psnr": 50.0, "landmark_error": 0.1, "dice": 0.3}, {"psnr": 30.0},
        ])
    ]  # fmt: skip
    broken = [made.broken(trial, made.total) for trial in trials]
    assert broken[0] == {"psnr below 20": 0.5} and broken[1] == {"landmark_error above 0.8": pytest.approx(0.125)}
    assert broken[2] == {} and broken[3] == {"psnr above 40": 0.25, "dice above 0": 0.3} and len(broken[4]) == 2
    assert [trial.number for trial in made.ranked(trials, made.total)] == [2, 1, 0, 3, 4]
    assert made.broken(replace(trials[0], results={}), made.total) == {} and made.needed == (
        "psnr",
        "landmark_error",
        "dice",
    )


def test_nothing_is_best_where_nothing_keeps_the_constraints():
    made = with_spec(a_plan("asha", 6, confirm=2), constraints={"psnr": Bounds(min=1e9)})
    sweep = Simulation(made, slots=2).run()
    assert schedule.best_trial(made, sweep.trials) is None and schedule.pareto_front(made, sweep.trials) == []
    assert len(sweep.trials) == 6 and sweep.reached(
        RUNGS[-1]
    )  # one is trained to the end: longer training may keep them


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12))
@settings(deadline=None)
def test_the_pareto_front_is_what_no_trial_dominates(points):
    """By brute force; psnr is to be large, landmark_error small. Equal trials are all on it."""
    made = with_spec(PLANS["none", 3], metric=("psnr", "landmark_error"))
    scores = [{"psnr": float(a), "landmark_error": float(b)} for a, b in points]
    trials = [Trial(n, "search", {}, 0, 64, results={made.total: one}) for n, one in enumerate(scores)]
    good, other = {"psnr": 9.0, "landmark_error": 0.0}, Trial(20, "search", {}, 0, 64)
    odd = [replace(other, results=curve) for curve in ({made.total: {"psnr": 9.0}}, {RUNGS[0]: good})]
    odd.append(replace(other, role="confirm", results={made.total: good}))
    expected = [
        n for n, (a, b) in enumerate(points)
        if not any((c > a and d <= b) or (c >= a and d < b) for c, d in points)
    ]  # fmt: skip
    assert [trial.number for trial in schedule.pareto_front(made, [*trials, *odd])] == expected


@pytest.mark.parametrize("trials", [1, 4, 9, 20, 27])
def test_expected_samples_equal_trained_samples(trials):
    """Exactly, where it does not depend on the order; asha promotes a little more, since its best change."""
    for name in ("none", "pbt", "sync_halving"):
        made = a_plan(name, trials)
        assert schedule.expected_samples(made) == Simulation(made, slots=3).run().trained, name
    made = a_plan("asha", trials)
    share = Simulation(made, slots=1).run().trained / schedule.expected_samples(made)
    assert 0.99 < share < 1.7, share


def test_trials_are_compared_at_rungs():
    made = PLANS["asha", 3]
    trial = Trial(0, "search", {}, 0, 64, results={640: {}, 1280: {}, 1920: {}, 2560: {}})
    assert made.last_rung(trial) == 1920 and trial.reached == 2560 and made.last_rung(replace(trial, results={})) == 0


# More of it


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize(("chance", "slots", "killed"), [(0, 1, 0.0), (1, 4, 0.0), (2, 3, 0.2)])
def test_the_winner_and_the_paper_are_confirmed_with_the_same_seeds(name, chance, slots, killed):
    made = a_plan(name, 8, confirm=3, seed=5)
    sweep = Simulation(made, chance, slots, killed=killed).run()
    again, paper, winner = sweep.trials[8:], sweep.trials[0], schedule.best_trial(made, sweep.trials)
    assert winner.values != paper.values and all(trial.seed == 5 for trial in sweep.searched)
    assert all(trial.role == "confirm" and trial.evaluated_at(made.total) for trial in again)
    pairs = [(one.values, seed) for seed in (6, 7, 8) for one in (paper, winner)]
    assert [(trial.values, trial.seed) for trial in again] == pairs
    first = min(n for n, (number, _, _) in enumerate(sweep.segments) if number >= 8)
    assert all(number >= 8 for number, _, _ in sweep.segments[first:])  # not before the search is over


@pytest.mark.parametrize(
    ("paper", "other", "expected"),
    [
        ({}, {}, schedule.DONE),  # the paper's own are the best
        ({}, {"values": {"a": 1}, "results": {RUNGS[-1]: {"psnr": 3.0}}}, schedule.DONE),  # as another trial's
        ({"role": "base"}, {"results": {RUNGS[-1]: {"psnr": 3.0}}}, schedule.DONE),
        ({"failure": (6, "NaN")}, {"failure": (6, "NaN")}, schedule.DONE),
        ({}, {"results": {RUNGS[-1]: {"psnr": 3.0}}}, schedule.Segment(2, RUNGS[-1])),
        ({"failure": (6, "NaN")}, {}, schedule.Segment(2, RUNGS[-1])),  # it may do with another seed
    ],
)
def test_nothing_is_confirmed_without_a_comparison(paper, other, expected):
    trials = results({RUNGS[-1]: 2.0}, {RUNGS[-1]: 1.0})
    first = replace(trials[0], **{"role": "paper", "values": {"a": 1}} | paper)
    second = replace(trials[1], **{"values": {"a": 2}} | other)
    assert schedule.next_segment(a_plan("none", 2, confirm=2), [first, second]) == expected


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("confirm", [0, 2])
def test_a_goal_ends_the_search(name, confirm):
    """Nothing of the search begins once a trial has reached it; confirming trials follow. A goal out of reach changes nothing."""
    free = Simulation(a_plan(name, 9, confirm=confirm), slots=2).run()
    far = Simulation(replace(free.plan, goal=Goal("psnr", 99.0)), slots=2).run()
    assert far.asked == free.asked
    value = max(results["psnr"] for trial in free.searched for results in trial.results.values())
    value -= 0.3
    near = Simulation(replace(free.plan, goal=Goal("psnr", value)), slots=2).run()
    reached = schedule.goal_reached(near.plan, near.trials)
    assert reached is not None and max(results["psnr"] for results in reached.results.values()) >= value
    searched = [segment for segment in near.asked if near.trials[segment.number].role != "confirm"]
    assert len(searched) < len(free.asked) and searched == free.asked[: len(searched)]
    assert sum(trial.role == "confirm" for trial in near.trials) in (0, 2 * confirm)
    assert (
        confirm == 0
        or schedule.trials_to_confirm(near.plan, near.trials) is None
        or len(near.trials) > len(near.searched)
    )


@pytest.mark.parametrize(
    ("changes", "reached"),
    [
        ({}, True),
        ({"results": {TWO - 64: {"psnr": 24.0}}}, False),  # evaluated between rungs
        ({"results": {TWO: {"ssim": 24.0}}}, False),
        ({"failure": (6, "NaN")}, False),
    ],
)
def test_a_goal_is_reached_at_a_rung_by_what_can_be_the_best(changes, reached):
    made = replace(a_plan("asha", 4), goal=Goal("psnr", 24))
    trials = [replace(results({TWO: 24.0})[0], **{"until": TWO} | changes)]
    assert (schedule.goal_reached(made, trials) == trials[0]) == reached
    assert schedule.best_trial(made, trials) == trials[0] or not reached
    assert (schedule.next_segment(made, trials) == schedule.DONE) == reached


def test_a_goal_of_a_metric_of_which_less_is_better():
    goal = Goal("landmark_error", 0.1)
    assert str(goal) == "landmark_error<=0.1" and str(Goal("psnr", 24)) == "psnr>=24"
    assert [goal.is_met({"landmark_error": value}) for value in (0.2, 0.1, 0.05)] == [False, True, True]
    assert not goal.is_met({"psnr": 0.05})
