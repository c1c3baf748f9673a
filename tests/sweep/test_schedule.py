"""Which leg comes next: whole sweeps simulated with any order of events, kills and failures, against independent oracles."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from collagan_dist.sweep import schedule
from collagan_dist.sweep.prepare import _rungs
from collagan_dist.sweep.record import Trial
from collagan_dist.sweep.schedule import best, expected_samples, front
from tests.sweep.simulated import BATCH, TOTAL, Simulation, make_plan
from tests.sweep.test_space import space

ROUNDS = range(25)


def quality(number: int, samples: int) -> float:
    """Better trials are better at all lengths, but for some noise of their own."""
    return random.Random(number).random() + 0.2 * random.Random(1000 * number + samples).random() + samples / 100


@pytest.mark.parametrize("scheduler", ["none", "asha", "sync_halving", "pbt"])
@pytest.mark.parametrize("seed", ROUNDS)
def test_every_sweep_ends_and_trains_nothing_twice(scheduler: str, seed: int, tmp_path: Path) -> None:
    rungs = (TOTAL,) if scheduler == "none" else (10, 30, TOTAL)
    plan = make_plan(tmp_path, scheduler, 12, rungs)
    one = Simulation(plan, quality, 1 + seed % 4, seed, failing=0.1 * (seed % 3), killed=0.1 * (seed % 2)).run()
    assert len(one.trials) == 12
    for number in range(12):  # each leg begins where the one before it ended
        legs = [(begin, end) for who, begin, end in one.legs if who == number]
        assert [begin for begin, _ in legs] == [0, *(end for _, end in legs[:-1])][: len(legs)]
    for trial in one.trials:  # what was begun was ended, though others overtook it while it lay killed
        assert trial.failure or trial.reached == trial.until
    if not all(trial.failure for trial in one.trials):
        assert any(trial.has(TOTAL) for trial in one.trials)
        winner = best(plan, one.trials)
        whole = [trial for trial in one.trials if trial.has(TOTAL) and not trial.failure]
        assert winner is not None and winner.at(TOTAL)["psnr_hole"] == max(t.at(TOTAL)["psnr_hole"] for t in whole)  # type: ignore[index]


@pytest.mark.parametrize("seed", ROUNDS)
def test_synchronous_halving_is_the_same_whatever_happens(seed: int, tmp_path: Path) -> None:
    """Any order, any number of slots, any kills: the promotions of the ten lines below."""
    plan = make_plan(tmp_path, "sync_halving", 20)
    one = Simulation(plan, quality, 1 + seed % 5, seed, killed=0.2).run()
    left, expected = list(range(20)), []
    for before, rung in ((0, 10), (10, 30), (30, TOTAL)):
        expected += [(number, before, rung) for number in left]
        left = sorted(left, key=lambda number: -quality(number, rung))[: max(1, len(left) // 3)]
    assert sorted(one.legs) == sorted(expected)


@pytest.mark.parametrize("trials", [1, 2, 5, 9, 27, 40])
def test_asha_is_the_papers(trials: int, tmp_path: Path) -> None:
    """One worker: get_job of Li et al. 2020 (algorithm 2), until no configuration is left and nothing can be promoted."""
    plan = make_plan(tmp_path, "asha", trials)
    one = Simulation(plan, quality).run()
    rungs, results, promoted, expected = (10, 30, TOTAL), [{}, {}, {}], [set(), set(), set()], []  # type: ignore[var-annotated]
    begun = 0
    while True:
        job = None
        for k in (1, 0):  # from the highest rung that can promote
            top = sorted(results[k], key=lambda number: -results[k][number])[: len(results[k]) // 3]
            if candidates := [number for number in top if number not in promoted[k]]:
                job = (candidates[0], k + 1)
                promoted[k].add(candidates[0])
                break
        if job is None and begun < trials:
            job, begun = (begun, 0), begun + 1
        if job is None:
            break
        number, k = job
        expected.append((number, rungs[k - 1] if k else 0, rungs[k]))
        results[k][number] = quality(number, rungs[k])
    assert one.legs[: len(expected)] == expected
    assert all(end > 10 for _, _, end in one.legs[len(expected) :])  # then the best goes on to the end
    assert any(end == TOTAL for _, _, end in one.legs)


@pytest.mark.parametrize("seed", ROUNDS)
def test_pbt_goes_in_generations_whatever_happens(seed: int, tmp_path: Path) -> None:
    """The worst take from the best at each generation, the same ones after kills in the middle of it."""
    plan = make_plan(tmp_path, "pbt", 8, pbt={"quantile": 0.25})
    one = Simulation(plan, quality, 1 + seed % 4, seed, killed=0.2).run()
    calm = Simulation(plan, quality).run()
    assert sorted(one.traded, key=lambda t: (t[2], t[0])) == sorted(calm.traded, key=lambda t: (t[2], t[0]))
    assert [trial.values for trial in one.trials] == [trial.values for trial in calm.trials]
    for at in (10, 30):
        ranked = sorted(range(8), key=lambda number: -quality(number, at))
        trades = [(loser, winner) for loser, winner, when in one.traded if when == at]
        assert {loser for loser, _ in trades} == set(ranked[-2:]) and {winner for _, winner in trades} <= set(
            ranked[:2]
        )
    assert not [trade for trade in one.traded if trade[2] == TOTAL]
    assert sum(len(trial.lineage) for trial in one.trials) == 4


def test_who_is_furthest_is_promoted_first(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "asha", 13)
    reached = {0: (10, 30), 1: (10, 30), 2: (10, 30)}
    trials = []
    for number in range(12):
        ends = reached.get(number, (10,))
        results = {end: {"psnr_hole": -float(number)} for end in ends}
        trials.append(Trial(number, "search", {}, 0, BATCH, until=ends[-1], results=results))
    assert schedule.next_leg(plan, trials) == schedule.Leg(0, TOTAL)  # before trial 3 to 30, and before a new one
    trials[0] = replace(trials[0], until=TOTAL, running=True)
    assert schedule.next_leg(plan, trials) == schedule.Leg(3, 30)


def test_what_was_promoted_once_goes_on(tmp_path: Path) -> None:
    """A leg that a kill broke off is done first, though three better ones have come to its rung since."""
    plan = make_plan(tmp_path, "asha", 4)
    trials = [Trial(n, "search", {}, 0, BATCH, until=10, results={10: {"psnr_hole": float(n)}}) for n in range(4)]
    trials[0] = replace(trials[0], until=30)
    trials[3] = replace(trials[3], until=30, running=True)
    assert schedule.next_leg(plan, trials) == schedule.Leg(0, 30)


def test_an_error_is_best_when_it_is_smallest(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "sync_halving", 6, metric="landmark_error")
    one = Simulation(plan, quality).run()
    first = [number for number, begin, _ in one.legs if begin == 10]
    assert set(first) == set(sorted(range(6), key=lambda number: quality(number, 10))[:2])


def test_a_winner_that_failed_later_is_none(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "none", 3, (TOTAL,))
    one = Simulation(plan, quality).run()
    winner = best(plan, one.trials)
    assert winner is not None
    one.trials[winner.number] = replace(winner, failure=(6, "NaN"))
    second = best(plan, one.trials)
    assert second is not None and second.number != winner.number


def test_a_sweep_can_be_given_more_trials(tmp_path: Path) -> None:
    """What was trained stays; only the new ones, and who is promoted now, are trained."""
    for scheduler in ("none", "asha"):
        rungs = (TOTAL,) if scheduler == "none" else (10, 30, TOTAL)
        one = Simulation(make_plan(tmp_path, scheduler, 6, rungs), quality).run()
        before = len(one.legs)
        one.plan = make_plan(tmp_path, scheduler, 12, rungs)
        one.run()
        assert len(one.trials) == 12 and len(set(one.legs)) == len(one.legs) and before < len(one.legs)


@pytest.mark.parametrize("slots", [1, 3])
def test_the_best_and_the_papers_are_confirmed(slots: int, tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "asha", 9, confirm=3)
    one = Simulation(plan, lambda number, samples: quality(number, samples) if number else -1.0, slots).run()
    again = one.trials[9:]
    winner = best(plan, one.trials)
    assert (
        winner is not None and len(again) == 6 and all(trial.role == "confirm" and trial.has(TOTAL) for trial in again)
    )
    assert [trial.values for trial in again] == [one.trials[0].values, winner.values] * 3
    assert [trial.seed for trial in again] == [1, 1, 2, 2, 3, 3]
    # More trials afterwards, of which one is better: that one is confirmed, too, and the paper's are not trained again.
    one.plan, one.curve = make_plan(tmp_path, "asha", 12, confirm=3), lambda number, samples: float(number)
    one.run()
    assert [trial.role for trial in one.trials] == ["paper"] + ["search"] * 8 + ["confirm"] * 6 + ["search"] * 3 + [
        "confirm"
    ] * 3
    assert {str(trial.values) for trial in one.trials[18:]} == {str(best(one.plan, one.trials).values)}  # type: ignore[union-attr]
    alone = Simulation(plan, lambda number, samples: quality(number, samples) if number else 99.0).run()
    assert len(alone.trials) == 9  # the paper's own are the best: nothing to compare


def test_what_it_trains_is_what_was_expected(tmp_path: Path) -> None:
    for scheduler in ("none", "sync_halving", "pbt", "asha"):
        plan = make_plan(tmp_path, scheduler, 27, (TOTAL,) if scheduler == "none" else (10, 30, TOTAL))
        trained = sum(end - begin for _, begin, end in Simulation(plan, quality).run().legs)
        assert trained == pytest.approx(expected_samples(plan), rel=0.35 if scheduler == "asha" else 0.01)


def test_the_front_is_what_nobody_beats(tmp_path: Path) -> None:
    plan = schedule.Plan(
        space(tmp_path, {"metric": ["psnr", "landmark_error"], "search": "nsga2"}), 40, TOTAL, (TOTAL,), 0
    )
    draw = random.Random(5)
    points = [(draw.randrange(12), draw.randrange(12)) for _ in range(40)]
    trials = [
        Trial(n, "search", {}, 0, BATCH, results={TOTAL: {"psnr": float(a), "landmark_error": float(b)}})
        for n, (a, b) in enumerate(points)
    ]
    expected = [
        n for n, (a, b) in enumerate(points) if not any((c, d) != (a, b) and c >= a and d <= b for c, d in points)
    ]
    assert [trial.number for trial in front(plan, trials)] == expected


def test_rungs_are_of_samples(tmp_path: Path) -> None:
    """Multiplied by the factor, none just before the end; a generation of PBT is a length, too."""
    tree = space(tmp_path, {"scheduler": "asha"}).tree
    assert _rungs(tree, 8640) == (960, 2880, 8640) and _rungs(tree, 100) == (11, 33, 100)
    assert _rungs(space(tmp_path, {"scheduler": "asha", "rungs": {"first": 1000, "factor": 4}}).tree, 20_000) == (
        1000,
        4000,
        16_000,
        20_000,
    )
    assert _rungs(space(tmp_path, {"scheduler": "pbt", "pbt": {"every": 40}}).tree, 100) == (40, 80, 100)
    assert _rungs(space(tmp_path, {}).tree, 100) == (100,)
