import itertools
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.distributed.stop_request import StopRequest
from collagan_dist.errors import CollaganError, ConfigError, DataError
from collagan_dist.sweep.driver import new_trial, run_sweep
from collagan_dist.sweep.prepare import PreparedSweep, SweepOptions, _rungs, constant_summary, prepare
from collagan_dist.sweep.resources import TrialResources
from collagan_dist.sweep.schedule import Goal, Segment, missing_confirmations, next_segment
from collagan_dist.sweep.trial import Trial, read_trials, write_trial
from tests.sweep.simulation import PLANS, plan
from tests.sweep.small import GRID, HALVING, write


def rungs(scheduler: str, total: int, batch: int = 1, more: str = "") -> tuple[int, ...]:
    return _rungs(plan(scheduler, 4, more=more).space.spec, total, batch)


@pytest.mark.parametrize(
    ("scheduler", "total", "batch", "more", "expected"),
    [
        ("none", 20_000, 1, "", (20_000,)),
        ("asha", 8640, 1, "", (960, 2880, 8640)),
        ("asha", 100, 1, "", (11, 33, 100)),  # none just before the end
        ("asha", 20_000, 1, "rungs: {first: 1000, factor: 4}", (1000, 4000, 16_000, 20_000)),
        ("asha", 80, 16, "rungs: {first: 22}", (22, 80)),  # 66 were the last step, too
        ("pbt", 100, 1, "pbt: {every: 40}", (40, 80, 100)),
        ("pbt", 95, 1, "", (*range(10, 95, 10), 95)),
    ],
)
def test_rungs_are_of_samples(scheduler, total, batch, more, expected):
    assert rungs(scheduler, total, batch, more) == expected


def test_rungs_are_of_different_steps():
    for name in ("asha", "sync_halving", "pbt"):
        for batch, steps in itertools.product((1, 7, 64), range(2, 60)):
            found = _rungs(PLANS[name, 3].space.spec, batch * steps, batch)
            reached = [-(-rung // batch) for rung in found]
            assert reached == sorted(set(reached)) and reached[-1] == steps and len(found) > 1, (name, found)


@pytest.mark.parametrize(
    ("given", "total", "batch", "message"),
    [
        (100, 100, 1, "100 samples must be less than a full run's 100"),
        (63, 6400, 64, "63 samples are less than a batch of 64"),
        (63, 64, 2, "63 samples must be less than a full run's 64"),
        (None, 64, 64, "64 samples must be less than a full run's 64.*train for longer"),
    ],
)
def test_a_given_length_that_cannot_be_a_rung_is_refused(given, total, batch, message):
    for scheduler, section, key in (("asha", "rungs", "first"), ("pbt", "pbt", "every")):
        more = f"{section}: {{{key}: {given}}}" if given else ""
        with pytest.raises(ConfigError, match=f"{section}.{key}: {message}"):
            rungs(scheduler, total, batch, more)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def prepared(shards: Manifest, out: Path, space: dict[str, Any] = HALVING, **options: Any) -> PreparedSweep:
    config, file = write(out.parent / "files", shards.folder, space)
    return prepare(SweepOptions(str(config), str(file), str(shards.folder), out, **{"trials": 6, **options}))


def begin(sweep: PreparedSweep, out: Path) -> None:
    """Write what the first start of a sweep leaves."""
    out.mkdir()
    (out / "sweep.json").write_text(json.dumps(constant_summary(sweep) | {"seconds": 5.0}))


@pytest.mark.parametrize(
    ("scheduler", "options"), [("sync_halving", {}), ("sync_halving", {"seeds": 2}), ("asha", {"trials": 9})]
)
def test_the_same_sweep_is_resumed(shards, out, scheduler, options):
    """Confirming seeds can be added, and trials where the scheduler does not compare all from the beginning."""
    space = {**HALVING, "scheduler": scheduler}
    begin(prepared(shards, out, space), out)
    summary = constant_summary(prepared(shards, out, space, **options))
    assert (summary["seconds"], summary["trials"]) == (5.0, options.get("trials", 6))


# As an earlier version wrote them: it knew no constraints, repeats or starting points.
BEGUN_SPACE = {
    "metric": "psnr_hole", "scheduler": "sync_halving", "search": "random", "rungs": {"factor": 3}, "pbt": {"quantile": 0.25, "resample": 0.25},
    "space": {"loss.weights.*.adv": {"simplex": 1.0}, "optim.generator.lr": {"loguniform": [0.001, 0.1]}},
}  # fmt: skip
BEGUN_TRIAL = {
    "number": 0, "role": "paper", "seed": 0, "batch": 4, "notes": {}, "until": 24, "lineage": [], "failure": None, "restarts": 0,
}  # fmt: skip


def test_a_sweep_of_an_earlier_version_is_resumed(shards, out):
    """With the trials that it has, as single seeds; nothing else is asked than it would have asked."""
    sweep = prepared(shards, out, seeds=1)
    begin(sweep, out)
    begun = json.loads((out / "sweep.json").read_text())
    begun["identity"]["space"] = BEGUN_SPACE
    for key in ("constraints", "repeats"):
        del begun[key]
    (out / "sweep.json").write_text(json.dumps(begun))
    (_, values), *_ = sweep.plan.space.initial_points()
    (out / "trials/t000").mkdir(parents=True)
    (out / "trials/t000/trial.json").write_text(json.dumps(BEGUN_TRIAL | {"values": values}))
    assert constant_summary(sweep)["seconds"] == 5.0
    trials = read_trials(out)
    assert trials == [Trial(0, "paper", values, 0, 4, until=24)]
    assert next_segment(sweep.plan, trials) == Segment(0, 24)
    trials = [replace(trials[0], results={24: {"psnr_hole": 9.0}})]
    while len(trials) < 6:
        assert next_segment(sweep.plan, trials) == Segment(len(trials), 24)
        new = new_trial(sweep.plan, trials)
        trials.append(replace(new, until=24, results={24: {"psnr_hole": 9.0 - len(trials)}}))
    assert [(trial.role, trial.seed) for trial in trials] == [("paper", 0)] + [("search", 0)] * 5
    ended = [replace(trial, results={216: {"psnr_hole": trial.number}}) for trial in trials]
    assert missing_confirmations(sweep.plan, ended) == [(values, 1), (trials[-1].values, 1)]


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        ({**HALVING, "metric": "psnr"}, {}, "space.metric: psnr_hole -> psnr"),
        ({**HALVING, "repeats": 2}, {}, "space.repeats: None -> 2"),
        ({**HALVING, "start": [{"optim.generator.lr": 0.01}]}, {}, "space.start"),
        ({**HALVING, "constraints": {"psnr": {"min": 5}}}, {}, "space.constraints.psnr.min: None -> 5.0"),
        (HALVING, {"sets": ("loss.adv=minmax",)}, "config.loss.adv: ns -> minmax"),
        (HALVING, {"sets": ("schedule.steps=60",)}, "total: 216 -> 240"),
        (HALVING, {"trials": 7}, "was begun with 6; sync_halving compares all of them from the beginning"),
        (HALVING, {"trials": 5}, "was begun with 6; more can be added, not taken away"),
    ],
)  # fmt: skip
def test_another_sweep_in_the_folder_is_refused(shards, out, space, options, message):
    begin(prepared(shards, out), out)
    with pytest.raises(ConfigError, match=message):
        constant_summary(prepared(shards, out, space, **options))


def test_trials_identify_a_sweep_without_sweep_json(shards, out):
    sweep = prepared(shards, out)
    (_, values), *_ = sweep.plan.space.initial_points()
    write_trial(out, Trial(0, "paper", values, 0, 4))
    constant_summary(sweep)
    write_trial(out, Trial(0, "paper", {**values, "optim.generator.lr": 0.5}, 0, 4))
    with pytest.raises(ConfigError, match=r"has trials of another sweep, .* no sweep\.json"):
        constant_summary(sweep)
    for number in range(2):
        write_trial(out, Trial(number, "paper", values, number, 4, repeat_of=0 if number else None))
    with pytest.raises(ConfigError, match=r"has trials of another sweep, .* no sweep\.json"):
        constant_summary(sweep)
    constant_summary(prepared(shards, out, {**HALVING, "repeats": 2}))
    write_trial(out, Trial(1, "search", values, 0, 4))
    constant_summary(prepared(shards, out, trials=2))
    with pytest.raises(ConfigError, match=r"or more than --trials 1, and no sweep\.json"):
        constant_summary(prepared(shards, out, trials=1))
    shutil.rmtree(out / "trials/t001")
    write_trial(out, Trial(0, "paper", {"optim.generator.lr": "fast"}, 0, 4))
    with pytest.raises(DataError, match=r"t000/trial\.json: its values are not of this space"):
        constant_summary(sweep)
    write_trial(out, Trial(0, "paper", values, 0, 4))
    (out / "sweep.json").write_text("{}")
    with pytest.raises(DataError, match=r"sweep\.json: identity is missing.* remove it"):
        constant_summary(sweep)


def batches(**domain: Any) -> dict[str, Any]:
    return {**HALVING, "space": {"schedule.batch": domain}}


def test_a_batch_of_a_range_needs_a_single_share(shards, out):
    assert prepared(shards, out, batches(integers=[4, 9])).plan.rungs[-1] == 216


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        (GRID, {"seeds": 2, "trials": None}, "this sweep has none of the paper's"),
        (GRID, {"trials": 9}, "the grid has 4 points, and 1 more are tried before them"),
        (HALVING, {"trials": 1, "sets": ("loss.weights.inpainting.adv=5",)}, "--trials 1: too few; 2 are the paper's"),
        ({**HALVING, "start": [{"optim.generator.lr": 0.01}]}, {"trials": 1}, "--trials 1: too few; 2 are .* and those of `start`"),
        ({**HALVING, "scheduler": "pbt"}, {"trials": 3}, "--trials 3: too few; .* give at least 4"),
        (HALVING, {"resources": TrialResources(workers=3)}, "schedule.batch: 4 samples cannot be shared evenly by 3 ranks"),
        (batches(integers=[4, 8]), {"resources": TrialResources(workers=2)}, "schedule.batch: a range has .* that 2 shares .* as choice"),
        (batches(integers=[4, 8]), {"sets": ("runtime.accumulate=2",)}, "space.yaml: schedule.batch: a range has batches that 2 shares"),
        (HALVING, {"sets": ("data.split=holiday",)}, "data.split|needs the split"),
    ],
)  # fmt: skip
def test_a_sweep_that_cannot_work_is_refused(shards, out, space, options, message):
    with pytest.raises(CollaganError, match=message):
        prepared(shards, out, space, **options)


def test_the_data_set_that_the_configuration_names(shards, out, monkeypatch):
    """Trials run in other folders, so its path is absolute. It is the same sweep as with --data."""
    config, file = write(out.parent / "files", shards.folder, HALVING)
    monkeypatch.chdir(shards.folder.parent)
    named = SweepOptions(str(config), str(file), None, out, 6, sets=(f"data.shards={shards.folder.name}",))
    sweep = prepare(named)
    assert sweep.base.data.shards == str(shards.folder) and sweep.identity == prepared(shards, out).identity
    with pytest.raises(ConfigError, match=r"data.shards is not set: give the folder of shards by --data"):
        prepare(replace(named, sets=("data.shards=null",)))


def test_the_folder_of_another_user_is_refused(shards, out):
    options = prepared(shards, out).options
    out.mkdir()
    os.chown(out, 12345, -1)
    with pytest.raises(ConfigError, match=r"belongs to another user \(id 12345\)"):
        run_sweep(options, StopRequest())


def test_a_goal_of_the_command_line(shards, out):
    assert prepared(shards, out, stop_at="psnr_hole >= 24.5").plan.goal == Goal("psnr_hole", 24.5)
    assert prepared(
        shards, out, {**HALVING, "metric": "landmark_error"}, stop_at="landmark_error<=.1"
    ).plan.goal == Goal("landmark_error", 0.1)
    for text, message in (
        ("psnr_hole<=24", "of psnr_hole more is better; give psnr_hole>=VALUE"),
        ("psnr>=24", "a metric of this sweep and the value to reach: psnr_hole>=VALUE"),
        ("psnr_hole>24", "a metric of this sweep and the value"),
        ("psnr_hole>=nan", "a metric of this sweep and the value"),
    ):
        with pytest.raises(ConfigError, match=f"--stop-at {text}: {message}"):
            prepared(shards, out, stop_at=text)


def test_trials_are_not_copied(shards, out):
    with pytest.raises(ConfigError, match=r"checkpoint.copy_to: the trials of a sweep are not copied"):
        prepared(shards, out, sets=("checkpoint.copy_to=/elsewhere",))
