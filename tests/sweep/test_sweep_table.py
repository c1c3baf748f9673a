import json
import re
from dataclasses import replace
from pathlib import Path

import optuna
import pandas
import pytest
from optuna.trial import TrialState

import collagan_dist as cd
from collagan_dist.errors import DataError
from collagan_dist.sweep import results
from collagan_dist.sweep.schedule import SweepPlan
from collagan_dist.sweep.space_spec import Bounds
from collagan_dist.sweep.trial import Trial, trial_dir, write_trial
from tests.sweep.simulation import RUNGS, Simulation, a_plan, with_spec
from tests.sweep.spaces import space


def stored(out: Path, plan: SweepPlan, trials: list[Trial], status: str) -> None:
    """What the driver leaves of such a sweep, as far as it is read."""
    for trial in trials:
        write_trial(out, trial)
        lines = [{"kind": "eval", "step": at // trial.batch, **metrics} for at, metrics in trial.results.items()]
        folder = trial_dir(out, trial)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if trial.reached:
            (folder / f"checkpoints/step-{trial.reached // trial.batch:08d}").mkdir(parents=True)
    results.write_summary(out, plan, trials, {**results.plan_facts(plan), "status": status})
    results.write_csv(out, plan, trials, over=status == "done")


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Simulation]:
    out = tmp_path_factory.mktemp("halved")
    sweep = Simulation(a_plan("sync_halving", 9, confirm=1, seed=3), failing=0.2).run()
    sweep.trials = [replace(trial, saved=trial.reached // trial.batch) for trial in sweep.trials]
    stored(out, sweep.plan, sweep.trials, "done")
    return out, sweep


def test_the_table_is_that_of_trials_csv(halved):
    out, sweep = halved
    found, written = cd.sweep_results(out), pandas.read_csv(out / "trials.csv")
    assert list(found.columns[:6]) == ["trial", "configuration", "status", "steps", "samples", "psnr"] and len(
        found
    ) == len(written)
    for name in ("trial", "status", "steps", "samples", "role", "seed", "restarts"):
        assert list(found[name]) == list(written[name]), name
    for key in sweep.plan.space.keys:
        assert list(found[f"config/{key}"]) == pytest.approx(list(written[key]), rel=1e-12)
    assert list(found["psnr"]) == pytest.approx(list(written["psnr"]), rel=1e-12, nan_ok=True)
    assert set(found["status"]) >= {"done", "failed", "stopped"} and not found["psnr"].dropna().empty
    assert list(found["path"]) == [str(trial_dir(out, trial)) for trial in sweep.trials]


def test_the_study_has_each_trial(halved):
    out, sweep = halved
    study = cd.sweep_study(out)
    states = {"done": TrialState.COMPLETE, "failed": TrialState.FAIL, "stopped": TrialState.PRUNED}
    assert len(study.trials) == len(sweep.searched) < len(sweep.trials)  # not those that confirm
    for known, trial in zip(study.trials, sweep.searched, strict=True):
        assert known.params == trial.values and known.user_attrs["trial"] == trial.number
        assert known.state == states[results.trial_status(sweep.plan.total, trial, True)]
        assert known.intermediate_values == {at: one["psnr"] for at, one in trial.results.items()}
    best = results.schedule.best_trial(sweep.plan, sweep.trials)
    assert best is not None and study.best_trial.user_attrs["trial"] == best.number
    assert study.best_value == best.results[RUNGS[-1]]["psnr"] and study.metric_names == ["psnr"]
    assert optuna.importance.get_param_importances(study, evaluator=optuna.importance.PedAnovaImportanceEvaluator())


def test_repeats_and_constraints_are_those_of_the_sweep(tmp_path):
    """The table has each seed, the study each configuration with its means; the study's best is the sweep's best."""
    bounds = {"psnr": Bounds(max=1.2)}
    plan = with_spec(a_plan("none", 9, confirm=1, seed=3), constraints=bounds, repeats=2)
    sweep = Simulation(plan, failing=0.15).run()
    sweep.trials = [replace(trial, saved=trial.reached // trial.batch) for trial in sweep.trials]
    stored(tmp_path, plan, sweep.trials, "done")
    found, written = cd.sweep_results(tmp_path), pandas.read_csv(tmp_path / "trials.csv", keep_default_na=False)
    for name in ("configuration", "seed", "status", "breaks"):
        assert list(found[name]) == list(written[name]), name
    assert set(found["breaks"]) == {"", "psnr above 1.2"} and set(found["status"]) == {"done", "failed"}
    study, best = cd.sweep_study(tmp_path), results.schedule.best_trial(plan, sweep.trials)
    assert best is not None and study.best_trial.user_attrs["trial"] == best.number
    assert study.best_value == best.results[RUNGS[-1]]["psnr"] < max(t.values[0] for t in study.trials if t.values)
    searched = found[found["role"] != "confirm"].groupby("configuration")
    assert [trial.user_attrs["trial"] for trial in study.trials] == list(searched.groups)
    for trial in study.trials:
        seeds = searched.get_group(trial.user_attrs["trial"])
        assert (trial.state == TrialState.FAIL) == ("failed" in set(seeds["status"]))
        if trial.state != TrialState.FAIL:
            assert trial.user_attrs["psnr"] == pytest.approx(seeds["psnr"].mean()) and len(seeds) == 2
            assert (trial.constraints["psnr above 1.2"] > 0) == (seeds["psnr"].mean() > 1.2)


def test_a_sweep_that_runs_can_be_read(tmp_path):
    """A trial whose segment was handed out is running; several metrics, choices of any kind, the paper's values outside the space."""
    betas = "optim.generator.betas: {choice: [[0.5, 0.9], [0, 0.9]]}"
    keys = f"loss.weights.*.adv: {{simplex: 1.0}}, loss.weights.inpainting.rec: {{loguniform: [1, 10]}}, {betas}"
    two = space(f"metric: [psnr, ssim]\nsearch: nsga2\nspace: {{{keys}}}")
    plan = SweepPlan(two, 2, RUNGS[-1], RUNGS[-1:], 0)
    ((_, values), *_) = two.initial_points()
    done = Trial(
        0,
        "paper",
        values,
        0,
        64,
        until=RUNGS[-1],
        saved=RUNGS[-1] // 64,
        results={RUNGS[-1]: {"psnr": 1.0, "ssim": 2.0}},
    )
    begun = replace(done, number=1, role="search", results={}, saved=0)
    stored(tmp_path, plan, [done, begun], "running")
    assert list(cd.sweep_results(tmp_path)["status"]) == ["done", "running"]
    first, second = cd.sweep_study(tmp_path).trials
    assert first.values == [1.0, 2.0] and second.state == TrialState.RUNNING
    assert first.params["optim.generator.betas"] == json.dumps(list(values["optim.generator.betas"]))
    assert first.params["loss.weights.inpainting.rec"] == values["loss.weights.inpainting.rec"] > 10
    (tmp_path / "sweep.json").write_text("{}")
    for function in (cd.sweep_results, cd.sweep_study):
        with pytest.raises(DataError, match=re.escape(f"{tmp_path}/sweep.json")):
            function(tmp_path)
