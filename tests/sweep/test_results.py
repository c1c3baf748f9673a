import csv
import json
from dataclasses import replace

import pytest

from collagan_dist.config.load import load_config
from collagan_dist.sweep import results
from collagan_dist.sweep.space_spec import Bounds
from collagan_dist.sweep.trial import Trial
from tests.sweep.simulation import RUNGS, Simulation, a_plan, with_spec


def test_status():
    plan = a_plan("asha", 4)
    trial = Trial(0, "search", {}, 0, 64)
    rung, full = {RUNGS[0]: {"psnr": 1.0}}, {RUNGS[-1]: {"psnr": 1.0}}
    found = [
        results.trial_status(plan.total, one, over)
        for one in (trial, replace(trial, running=True), replace(trial, results=rung), replace(trial, results=full))
        for over in (False, True)
    ]
    assert found == ["waiting", "stopped", "running", "running", "paused", "stopped", "done", "done"]
    assert results.trial_status(plan.total, replace(trial, results=full, failure=(6, "NaN")), True) == "failed"


def test_files_of_a_finished_sweep(tmp_path):
    sweep = Simulation(a_plan("sync_halving", 9, confirm=2, seed=3), failing=0.2).run()
    plan, trials = sweep.plan, sweep.trials
    best = results.schedule.best_trial(plan, trials)
    results.write_csv(tmp_path, plan, trials, over=True)
    results.write_best(tmp_path, plan, trials)
    results.write_summary(tmp_path, plan, trials, {"status": "done"})
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["trial"]) for row in rows] == list(range(len(trials)))
    for row, trial in zip(rows, trials, strict=True):
        assert {key: float(row[key]) for key in plan.space.keys} == trial.values
        score = trial.results.get(trial.reached, {}).get("psnr", float("nan"))
        assert float(row["psnr"] or "nan") == pytest.approx(score, nan_ok=True)
        assert (row["status"] == "failed") == bool(row["reason"]) == trial.failed
        assert int(row["samples"]) == trial.reached
    assert load_config(str(tmp_path / "best.yaml")) == plan.space.config(best.values)
    summary = json.loads((tmp_path / "sweep.json").read_text())
    assert summary["best"] == best.number and summary["front"] == [] and summary["paper"] == trials[0].values


def test_files_name_constraints_and_repeats(tmp_path):
    """trials.csv says of which configuration a trial is and what it breaks; best.yaml goes when nothing keeps the constraints."""
    bounds = {"psnr": Bounds(max=1.2)}
    plan = with_spec(a_plan("sync_halving", 9, seed=3), constraints=bounds, repeats=2)
    sweep = Simulation(plan).run()
    results.write_csv(tmp_path, plan, sweep.trials, over=True)
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, trial in zip(rows, sweep.trials, strict=True):
        assert int(row["configuration"]) == trial.configuration == trial.number - trial.number % 2
        assert row["breaks"] == ("psnr above 1.2" if float(row["psnr"]) > 1.2 else "")
    assert 0 < sum(bool(row["breaks"]) for row in rows) < len(rows)
    results.write_best(tmp_path, plan, sweep.trials)
    text = (tmp_path / "best.yaml").read_text()
    assert "over 2 seeds after" in text
    results.write_best(tmp_path, with_spec(plan, constraints={"psnr": Bounds(max=-1)}), sweep.trials)
    assert not (tmp_path / "best.yaml").exists()


def test_confirming_seeds_are_compared_without_the_search():
    """Mean, spread and Welch's test over the seeds alone; None while one side has no result."""
    plan = a_plan("none", 2, confirm=2)

    def trial(number: int, role: str, value: float, a: float, seed: int) -> Trial:
        return Trial(number, role, {"a": a}, seed, 64, results={plan.total: {"psnr": value}})

    search = [trial(0, "paper", 1.0, 1.0, 0), trial(1, "search", 90.0, 2.0, 0)]
    again = enumerate([(2.0, 1.0, 1), (6.0, 2.0, 1), (4.0, 1.0, 2), (9.0, 2.0, 2)], 2)
    seeds = [trial(number, "confirm", *one) for number, one in again]
    found = results.confirmed(plan, [*search, *seeds])
    assert (found["difference"], found["paper"]["values"], found["best"]["trial"]) == (4.5, [2.0, 4.0], 1)
    assert found["p"] == pytest.approx(0.1487, abs=1e-3)
    assert results.confirmed(plan, [*search, seeds[0]]) is None and results.confirmed(plan, search) is None
