"""The next trial of a sweep: what it is when a sweep grows, for grids and learning samplers, and what it trains."""

from __future__ import annotations

from dataclasses import replace

import pytest

from collagan_dist.config.load import load_config
from collagan_dist.sweep import schedule
from collagan_dist.sweep.new_trial import trial_config
from collagan_dist.sweep.resources import TrialResources
from collagan_dist.sweep.schedule import SweepPlan
from collagan_dist.sweep.trial import Trial
from tests.sweep.simulation import RUNGS, Simulation, a_plan, stored
from tests.sweep.spaces import LR, space


@pytest.mark.parametrize("name", ["none", "asha"])
@pytest.mark.parametrize("confirm", [0, 2])
def test_a_sweep_can_grow(name: str, confirm: int) -> None:
    """New trials are searched, what was trained stays, and the confirmed pair is the present best one and the paper's."""
    for seed in range(2):
        small = a_plan(name, 6, confirm=confirm, seed=seed)
        sweep = Simulation(small, slots=2).run()
        before = list(sweep.trials)
        sweep.plan, sweep.trials = replace(small, trials=15), [stored(trial) for trial in sweep.trials]
        sweep.run()
        assert len(sweep.searched) == 15 and len({repr(trial.values) for trial in sweep.searched}) == 15
        assert all(
            now.values == then.values and now.role == then.role for now, then in zip(sweep.trials, before, strict=False)
        )
        winner = schedule.best_trial(sweep.plan, sweep.trials)
        assert winner
        again = [(trial.values, trial.seed) for trial in sweep.trials if trial.role == "confirm"]
        for one in (winner, sweep.trials[0]) if winner.role != "paper" else ():
            assert [s for values, s in again if values == one.values] == [seed + 1 + k for k in range(confirm)]
        assert len(again) == len({repr(one) for one in again})


def test_confirming_trials_do_not_change_what_is_searched() -> None:
    """The same values as in a sweep that had that many trials from the beginning."""
    whole = Simulation(a_plan("none", 12)).run()
    grown = Simulation(a_plan("none", 6, confirm=2)).run()
    assert len(grown.trials) == 10
    grown.plan = a_plan("none", 12, confirm=2)
    grown.run()
    assert [trial.values for trial in grown.searched] == [trial.values for trial in whole.searched]


def test_each_point_of_a_grid_is_tried_once_after_the_initial_points() -> None:
    """Also where it is cut short first, confirmed, and continued."""
    grid = space(
        "metric: psnr\nsearch: grid\nspace: {loss.weights.inpainting.rec: {choice: [1, 10, 1000]}, loss.adv: {choice: [ns, minmax]}}"
    )
    sweep = Simulation(SweepPlan(grid, 4, RUNGS[-1], RUNGS[-1:], 0, 1)).run()
    sweep.plan = replace(sweep.plan, trials=7)
    sweep.run()
    assert [trial.role for trial in sweep.searched] == ["paper"] + 6 * ["search"]
    assert [trial.values for trial in sweep.searched[1:]] == grid.grid()


@pytest.mark.parametrize("head", ["metric: psnr\nsearch: tpe\nscheduler: asha", "metric: [psnr, dice]\nsearch: nsga2"])
def test_learning_samplers_complete_a_sweep(head: str) -> None:
    """With what is running, paused, stopped and failed among what they are told."""
    where = space(
        f"{head}\nspace: {{loss.weights.*.rec: {{loguniform: [1, 1000]}}, loss.weights.*.adv: {{simplex: 1}}}}"
    )
    rungs = RUNGS if "asha" in head else RUNGS[-1:]
    sweep = Simulation(SweepPlan(where, 30, rungs[-1], rungs, 0), 1, 4, failing=0.1, lost=0.05, killed=0.05).run()
    assert len({repr(trial.values) for trial in sweep.trials}) == 30
    assert any(trial.notes for trial in sweep.trials)


def test_a_trial_trains_a_full_run_of_its_values_and_evaluates_at_the_end() -> None:
    """Whatever its batch; the CPUs of a worker are its threads, unless the configuration says how many."""
    where = space(f"metric: psnr\n{LR[:-1]}, schedule.batch: {{choice: [32, 48]}}}}")
    plan = SweepPlan(where, 4, 1000, (1000,), 0)
    trial = Trial(1, "search", {"optim.generator.lr": 0.01, "schedule.batch": 48}, 7, 48)
    config = trial_config(load_config("stable"), plan, trial, TrialResources(cpus=3))
    assert (config.optim.generator.lr, config.schedule.batch, config.seed) == (0.01, 48, 7)
    assert config.schedule.steps == config.evaluate.every == 21  # the first that is no shorter than 1000 samples
    assert config.runtime.threads == config.data.threads == 3
    fixed = load_config("stable", None, ["runtime.threads=5", "evaluate.every=2"])
    where = space(f"metric: psnr\n{LR}", sets=["runtime.threads=5", "evaluate.every=2"])
    config = trial_config(
        fixed, SweepPlan(where, 4, 1000, (1000,), 0), replace(trial, values={}), TrialResources(cpus=3)
    )
    assert (config.runtime.threads, config.data.threads, config.evaluate.every) == (5, 3, 2)
