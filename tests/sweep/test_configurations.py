import itertools
import math
from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collagan_dist.sweep import results, schedule, search
from collagan_dist.sweep.configurations import configurations, members, standard_error
from collagan_dist.sweep.space_spec import Bounds
from collagan_dist.sweep.trial import Trial
from tests.sweep.simulation import RUNGS, Simulation, a_plan, chosen, stored, with_spec


def repeated(name: str, trials: int, repeats: int = 3, **more: int) -> schedule.SweepPlan:
    return with_spec(a_plan(name, trials, **more), repeats=repeats)


def test_a_configuration_has_the_mean_of_its_seeds():
    """Where all of them were evaluated; one that fails makes it fail, and what is missing is not averaged."""

    def trial(number: int, results: dict, **more: object) -> Trial:
        return Trial(number, "search", {}, number, 64, repeat_of=3 if number > 3 else None, results=results, **more)

    group = [
        trial(3, {64: {"psnr": 1.0, "dice": 0.5}, 128: {"psnr": 9.0}}, until=128), trial(4, {64: {"psnr": 2.0}}, running=True),
        trial(5, {64: {"psnr": 6.0, "dice": 0.1}}),
    ]  # fmt: skip
    (one,) = configurations([*group, Trial(6, "confirm", {}, 9, 64)], 3)
    assert (one.number, one.until, one.running, one.failed, one.results) == (3, 128, True, False, {64: {"psnr": 3.0}})
    assert standard_error(group, "psnr", 64) == pytest.approx(math.sqrt(7 / 3))  # the variance of 1, 2, 6 is 7
    assert standard_error(group, "psnr", 128) is None and standard_error(group[:1], "psnr", 64) is None
    assert configurations(group[:2], 3)[0].results == {}  # the third seed has not begun
    assert configurations([group[0], replace(group[1], failure=(6, "NaN"))], 3)[0].failure == (6, "NaN")
    assert configurations(group[:1], 1) == group[:1]


@pytest.mark.parametrize("name", ["none", "asha", "sync_halving"])
@pytest.mark.parametrize("failing", [0.0, 0.1])
def test_repeats_end_and_repeat_exactly(name, failing):
    """All seeds of a configuration go as far as one another. Killed or not, on any slots, the outcome is the same for halving."""
    outcomes = []
    for chance, (slots, killed) in enumerate([(1, 0.0), (1, 0.3), (5, 0.0), (4, 0.2)]):
        sweep = Simulation(repeated(name, 7, seed=4), chance, slots, killed=killed)
        # Whether a seed fails is told by the configuration, not by the number that its trial happens to have.
        sweep.fails = lambda number, samples, sweep=sweep: (  # type: ignore[method-assign]
            search.generator_for(5, sweep.trials[number].seed, *key(sweep.trials[number]), samples).random() < failing
        )
        sweep.objective = noisy
        sweep.run()
        groups = members(sweep.trials)
        assert len(groups) == 7
        for group in groups.values():
            assert [trial.seed for trial in group] == list(range(4, 4 + len(group)))
            assert len({repr(trial.values) for trial in group}) == 1 == len({trial.role for trial in group})
            if not any(trial.failed for trial in group):
                assert len(group) == 3 and len({trial.until for trial in group}) == 1
                assert all(trial.evaluated_at(trial.until) for trial in group)
        best = schedule.best_trial(sweep.plan, sweep.trials)
        count, sweep.trials = len(sweep.segments), [stored(trial) for trial in sweep.trials]
        assert len(sweep.run().segments) == count
        outcomes.append(
            (best and best.values, {one.number: (one.values, one.results) for one in configurations(sweep.trials, 3)})
        )
    if name == "sync_halving" and not failing:
        assert all(outcome == outcomes[0] for outcome in outcomes)
    if name == "sync_halving":  # a seed that fails is no reason to choose otherwise
        assert all(outcome[0] == outcomes[0][0] for outcome in outcomes)


@given(
    st.sampled_from(["none", "asha", "sync_halving"]), st.integers(1, 9), st.integers(2, 4), st.integers(1, 6), st.booleans(),
    st.sampled_from([0.0, 0.2, 1.0]), st.sampled_from([0.0, 0.2]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_every_sweep_of_repeats_ends(name, trials, repeats, slots, constrained, failing, lost):
    """Whatever fails, is lost or killed. Started again, it trains the seeds that the cluster took, and those that were not begun for it."""
    bounds = {"psnr": Bounds(max=0.9)} if constrained else {}
    made = with_spec(a_plan(name, trials, confirm=1), repeats=repeats, constraints=bounds)
    sweep = Simulation(made, trials, slots, failing, lost, killed=0.1).run()
    assert len(members(sweep.trials)) == trials
    sweep.trials, sweep.lost = [stored(trial) for trial in sweep.trials], 0.0
    sweep.run()
    for group in members(sweep.trials).values():
        assert sorted(trial.seed for trial in group) == list(range(len(group)))
        if not any(trial.failed for trial in group):
            assert len(group) == repeats and all(trial.evaluated_at(group[0].until) for trial in group)
    kept = schedule.contenders(made, sweep.trials)
    assert all(not constrained or trial.metrics_at(made.last_rung(trial))["psnr"] <= 0.9 for trial in kept)
    assert schedule.best_trial(made, sweep.trials) == (kept[0] if kept else None)


def key(trial: Trial) -> tuple[int, ...]:
    return tuple(int(1e6 * value) % 2**31 for value in trial.values.values())


def noisy(trial: Trial, samples: int) -> dict[str, float]:
    own, noise = (
        search.generator_for(1, *key(trial)).random(),
        search.generator_for(2, trial.seed, *key(trial), samples),
    )
    return {"psnr": float(own + 0.3 * noise.normal() + samples / 1e5)}


@pytest.mark.parametrize("name", ["none", "asha", "sync_halving"])
def test_samples_of_repeats(name):
    made = repeated(name, 9)
    sweep = Simulation(made, objective=noisy).run()
    share = sweep.trained / schedule.expected_samples(made)
    assert share == 1 if name != "asha" else 0.99 < share < 1.7


def test_confirming_seeds_are_none_of_the_search():
    made = repeated("sync_halving", 9, confirm=2, seed=5)
    sweep = Simulation(made, slots=3, objective=noisy).run()
    confirming = [trial for trial in sweep.trials if trial.role == "confirm"]
    assert {trial.seed for trial in sweep.searched} == {5, 6, 7} and [trial.seed for trial in confirming] == [
        8,
        8,
        9,
        9,
    ]


@pytest.mark.parametrize("scheduler", ["none", pytest.param("asha", marks=pytest.mark.full), "sync_halving"])
def test_repeats_choose_the_better_configuration_more_often(scheduler):
    """Noise of seeds half as large as the differences of configurations; benchmarks/search.py has the figures of many more sweeps."""
    once, thrice = ([chosen(scheduler, 12, repeats, 0.5, seed)[0] for seed in range(60)] for repeats in (1, 3))
    assert thrice.count(0) > once.count(0) + 4 and fmean(thrice) < fmean(once)


def test_without_noise_repeats_change_nothing():
    for name in ("none", "asha", "sync_halving"):
        assert {chosen(name, 9, repeats, 0.0, seed)[0] for seed in range(4) for repeats in (1, 2)} == {0}


def test_the_lead_is_compared_with_its_noise():
    """By hand: means 12 and 10, standard errors 1 and 1: a lead of 2 ± 1.41 is no more than noise, of 4 it is."""
    made = repeated("none", 2, 2)

    def trials(shift: float) -> list[Trial]:
        values = [(0, 9.0, None), (1, 11.0, 0), (2, 11.0 + shift, None), (3, 13.0 + shift, 2)]
        return [
            Trial(n, "search", {"a": float(n // 2)}, n, 64, repeat_of=of, results={RUNGS[-1]: {"psnr": v}})
            for n, v, of in values
        ]

    found = results.lead(made, trials(0))
    assert found == {"trial": 2, "next": 0, "difference": 2.0, "error": pytest.approx(2**0.5), "clear": False}
    assert results.lead_text(found) == "2 ± 1.4 better than trial 0, the next: no more than the noise of seeds"
    assert (
        results.lead(made, trials(2))["clear"]
        and results.score_text(made, trials(0), configurations(trials(0), 2)[1]) == "12 ± 1 over 2 seeds"
    )
    assert results.lead(with_spec(made, repeats=1), trials(0)[:1]) is None


def test_each_configuration_is_one_point_of_the_search():
    made = repeated("none", 8)
    sweep = Simulation(made, objective=noisy).run()
    seen = results.observations(made, sweep.trials)
    assert len(seen) == 8 and [one.values for one in seen] == [
        group[0].values for group in members(sweep.trials).values()
    ]
    for one, group in zip(seen, members(sweep.trials).values(), strict=True):
        assert one.metrics == (pytest.approx(fmean(trial.metrics_at(made.total)["psnr"] for trial in group)),)
    # The same values as without repeats: what is searched does not depend on the number of seeds.
    alone = Simulation(with_spec(made, repeats=1), objective=noisy).run()
    assert [one.values for one in seen] == [trial.values for trial in alone.trials]
    assert len(set(itertools.chain(*([t.seed for t in g] for g in members(sweep.trials).values())))) == 3
