import math
from dataclasses import replace

import pytest

from collagan_dist.report import sweep_charts, sweep_summary, sweep_tables
from collagan_dist.report.repeats import by_configuration
from collagan_dist.report.sweep_data import SweepData, read_sweep
from collagan_dist.report.sweep_page import sweep_content
from collagan_dist.report.trial_data import TrialData
from tests.report.simulated_sweep import ASHA, LR, SimulatedSweep


@pytest.fixture(scope="module")
def repeated(shards, tmp_path_factory) -> SimulatedSweep:
    """Eight configurations with two seeds each, of which one fails with its second; some break a constraint."""
    space = {**ASHA, "repeats": 2, "start": [{LR: 5e-3}], "constraints": {"landmark_error": {"max": 3.0}}}
    folder = tmp_path_factory.mktemp("repeats") / "sweep"
    return SimulatedSweep(folder, shards.folder, 8, space=space, failing=(3,)).run()


@pytest.fixture(scope="module")
def sweep(repeated: SimulatedSweep) -> SweepData:
    return read_sweep(repeated.out)


def a_trial(number: int, samples: int, value: float, **more: object) -> TrialData:
    curve = tuple((at, value - (samples - at)) for at in (64, 128) if at <= samples)
    facts = {
        "curves": {"psnr": curve},
        "status": "done",
        "role": "search",
        "values": {},
        "scores": {"psnr": value},
        "configuration": 4,
        "seed": number,
    }
    return TrialData(number, samples=samples, steps=samples, **{**facts, **more})


def test_a_configuration_is_the_mean_at_the_length_of_all_its_seeds():
    (one,) = by_configuration([a_trial(4, 128, 80.0), a_trial(5, 64, 12.0, status="running")], 2)
    assert (one.number, one.status, one.samples, one.scores) == (4, "running", 64, {"psnr": 14.0})
    assert one.errors == {"psnr": pytest.approx(2.0)} and one.curves == {"psnr": ((64, 14.0),)}
    (alone,) = by_configuration([a_trial(4, 128, 80.0)], 2)  # the other seed may still change the mean
    assert alone.scores == {} == alone.errors
    assert alone.status == "paused"
    (alone,) = by_configuration([a_trial(4, 128, 80.0, status="failed", reason="NaN")], 2)
    assert alone.status == "failed"
    failed = a_trial(5, 0, 0.0, scores={}, status="failed", reason="NaN", curves={})
    (one,) = by_configuration([a_trial(4, 128, 80.0), failed], 2)
    assert (one.status, one.reason, one.scores) == ("failed", "with seed 5: NaN", {})
    confirm = a_trial(6, 128, 1.0, role="confirm", configuration=6)
    assert by_configuration([confirm], 2) == (confirm,)


def test_the_page_has_means_with_standard_errors(sweep, repeated):
    """The same as the scheduler's, whose best trial is the page's."""
    assert len(sweep.searched) == 8 and sweep.repeats == 2 and "mean of 2 seeds" in " ".join(sweep.notes)
    best, first = sweep.best_trial, repeated.trials[sweep.best]
    second = next(trial for trial in repeated.trials if trial.repeat_of == sweep.best)
    values = [trial.results[trial.reached]["psnr_hole"] for trial in (first, second)]
    assert best.scores["psnr_hole"] == pytest.approx(sum(values) / 2)
    assert best.errors["psnr_hole"] == pytest.approx(abs(values[0] - values[1]) / 2)
    text = sweep_summary.headline(sweep)
    assert (
        "Each is the mean of 2 seeds (± standard error)." in text
        and f"leads trial {sweep.lead.next}, the next, by" in text
    )
    assert ("which may be the noise of seeds" in text) != sweep.lead.clear
    assert "One seed each" not in text and "each with 2 seeds" in sweep_summary.cards(sweep)[0].note
    failed = sweep_tables.failed_table(sweep)
    assert [row[0] for row in failed.rows] == ["2"] and "with seed 1: the loss is NaN" in failed.rows[0][1][2].text
    assert "start" in [trial.role for trial in sweep.trials]


def test_the_page_says_who_breaks_a_constraint(sweep):
    broken = {trial.number for trial in sweep.searched if trial.scores.get("landmark_error", 0) > 3}
    assert 0 < len(broken) < 8 and sweep.best not in broken
    assert {trial.number for trial in sweep.searched if sweep.broken(trial)} == broken
    text = sweep_summary.headline(sweep)
    assert f"{len(broken)} of 7 trials break a constraint (landmark error above 3 px)." in text
    table = sweep_tables.trials_table(sweep)
    assert {int(row[0]) for row in table.rows if "above 3" in row[1][1].extra} == broken
    settings = dict(sweep_tables.settings_table(sweep).rows)
    assert (
        settings["constraints"][0].text == "landmark_error at most 3" and settings["seeds of each trial"][0].text == "2"
    )
    kinds = {trial.number: sweep_charts.kind_of(sweep, trial, sweep.best) for trial in sweep.searched}
    assert {number for number, kind in kinds.items() if kind == sweep_charts.BREAKING} == broken - {
        0
    }  # 0 is the paper's


def test_no_best_trial_where_none_keeps_the_constraints(sweep, repeated):
    bounds = {"landmark_error": replace_bound(sweep, 0.0)}
    none = replace(sweep, best=None, constraints=bounds, lead=None)
    assert sweep_summary.headline(none).startswith("No trial keeps the constraints. 7 of 7 trials break")
    assert sweep_charts.history_chart(none, none.main) is not None and none.best_number("psnr_hole") is None
    assert sweep_content(repeated.out)["sweep"]["constrained"]


def replace_bound(sweep: SweepData, value: float):
    return sweep.constraints["landmark_error"].model_copy(update={"max": value})


def test_a_lead_beyond_noise_is_said(sweep):
    clear = replace(sweep, lead=sweep.lead.model_copy(update={"clear": True, "difference": 1.0, "error": 0.1}))
    assert "by 1.00 ± 0.10 dB. " in sweep_summary.headline(clear)
    assert math.isfinite(sweep.lead.error)
