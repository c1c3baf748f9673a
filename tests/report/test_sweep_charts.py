from dataclasses import replace

import numpy as np
import pytest

from collagan_dist.report.sensitivity import sensitivity
from collagan_dist.report.sweep_charts import course_chart, key_ends, metric_limits, round_ticks, sensitivity_chart
from collagan_dist.report.sweep_data import Key, Metric
from tests.report.page_reader import is_affine
from tests.report.simulated_sweep import LR, REC

NAME = "PSNR in the hole"


def test_history_has_every_trial(asha_page, asha_data):
    chart, trials = asha_page.spec(f"{NAME} of every trial"), asha_data.searched
    points = {row["trial"]: (*at, row) for row, at in zip(chart.rows, chart.marks(2), strict=True)}
    assert set(points) == {trial.number for trial in trials}
    inside = [one for one in trials if one.scores and points[one.number][2]["kind"] != "worse: below the axis"]
    assert is_affine([points[trial.number][0] for trial in trials], [trial.number for trial in trials])
    drawn, true = [-points[trial.number][1] for trial in inside], [trial.scores["psnr_hole"] for trial in inside]
    assert is_affine(drawn, true) and len(inside) > 30
    for trial in trials:
        row = points[trial.number][2]
        kind = {"done": "full-length run", "stopped": "stopped early"}.get(trial.status, trial.status)
        assert row["kind"] == {asha_data.best: "best", 0: "the paper's λ"}.get(trial.number, kind)
        shown = f"{trial.scores['psnr_hole']:.2f} dB" if trial.scores else "–"
        assert [row[name] for name in ("status", "samples", "m0", "k0")] == [
            trial.status, f"{trial.samples:,}", shown, f"{trial.values[REC]:.4g}",
        ]  # fmt: skip
    # The step line passes through every full-length run that was the best so far.
    full = [trial for trial in trials if trial.status == "done"]
    best = np.maximum.accumulate([trial.scores["psnr_hole"] for trial in full])
    assert list(dict.fromkeys(row["y"] for row in chart.layer(0))) == list(dict.fromkeys(best))
    assert chart.layer(0)[-1]["x"] == trials[-1].number and len(chart.lines(0)[0]) == 2 * len(chart.layer(0)) - 1
    assert chart.layer(1) == [{"y": asha_data.paper_trial.scores["psnr_hole"]}]
    for words in (f"trial {asha_data.best}, the best", "the paper's λ after 24 samples: ", "stopped early", "failed"):
        assert words in chart.svg


def test_a_trial_under_the_pointer_is_told_by_all_its_values(asha_page, asha_data):
    layers = asha_page.spec(f"{NAME} of every trial").spec["layer"]
    titles = {one["field"]: one["title"] for one in layers[2]["encoding"]["tooltip"]}
    assert list(titles.values()) == ["trial", "status", "samples", NAME, *(key.label for key in asha_data.keys)]
    assert titles["k0"] == "inpainting.rec"


def test_curves_have_every_evaluation(asha_page, asha_data):
    chart = asha_page.spec(f"{NAME} during training")
    curves = {trial.number: trial.curves["psnr_hole"] for trial in asha_data.searched if trial.curves}
    assert {row["trial"] for row in chart.rows} == set(curves)
    true = [curves[row["trial"]] for row in chart.rows]
    assert list(map(len, chart.lines(1))) == list(map(len, true)) and chart.rows[-1]["trial"] == asha_data.best
    # Trials of one evaluation have dots, as a line of one point cannot be seen.
    single = [curve[0] for curve in true if len(curve) == 1]
    points = [point for line in (*chart.lines(1), chart.marks(2)) for point in line]
    values = [point for curve in true for point in curve] + single
    assert single and is_affine([x for x, _ in points], [samples for samples, _ in values])
    assert is_affine([-y for _, y in points], [value for _, value in values])
    assert [row["x"] for row in chart.layer(0)] == list(asha_data.rungs)


def test_each_key_has_a_chart_with_its_means_and_sentences(asha_page, asha_data):
    for key in asha_data.keys:
        found, chart = sensitivity(asha_data, key, asha_data.main), asha_page.spec(key.label)
        # The paper's value lies below the points, the means over them.
        paper, points, errors, means = range(4)
        assert len(chart.marks(points)) == len(chart.rows) == len(found.points) == 38
        values = {trial.number: trial.values[key.name] for trial in asha_data.trials}
        if key.ordered:
            assert [row["x"] for row in chart.rows] == pytest.approx(
                [values[row["trial"]] for row in chart.rows], rel=1e-5
            )
            assert chart.layer(paper) == [{"x": pytest.approx(key.paper)}]
        for bin, row in zip(found.bins, chart.layer(errors), strict=True):
            assert (row["y"], row["high"] - row["low"]) == pytest.approx((bin.mean, 2 * bin.error))
            assert row["x"] == pytest.approx(10**bin.centre if key.log else bin.centre, rel=1e-5)
        assert chart.layer(means) == chart.layer(errors)
        assert all(sentence in asha_page.text for sentence in (found.short, *found.sentences))
    log = asha_page.spec("generator.lr")
    at = {row["trial"]: x for row, (x, _) in zip(log.rows, log.marks(1), strict=True)}
    assert is_affine(list(at.values()), [np.log10(asha_data.trials[n].values[LR]) for n in at])


def test_the_papers_trial_keeps_its_mark_where_it_was_stopped_early(nsga2_data):
    paper = replace(nsga2_data.paper_trial, scores={"psnr_hole": 3.0}, samples=24, status="stopped")
    sweep = replace(nsga2_data, trials=(paper, *nsga2_data.trials[1:]))
    for key in sweep.keys:
        rows = sensitivity_chart(sweep, sensitivity(sweep, key, sweep.main)).spec["data"]["values"]
        assert [(row["kind"], row["y"]) for row in rows if row["trial"] == 0] == [("the paper's λ", 3.0)]


def test_without_a_curve_of_a_shown_trial_there_is_no_chart(asha_data):
    with_curve = next(one.number for one in asha_data.trials if one.curves)
    shown = frozenset(range(44)) - {with_curve}
    alone = [one if one.number == with_curve else replace(one, curves=None) for one in asha_data.trials]
    assert course_chart(replace(asha_data, trials=tuple(alone), shown=shown), asha_data.main) is None
    assert course_chart(replace(asha_data, trials=tuple(alone)), asha_data.main) is not None


def test_other_metrics_have_charts_too(nsga2_page, asha_page):
    for metric in (NAME, "Dice", "Landmark error"):
        assert nsga2_page.spec(f"{metric} of every trial") and nsga2_page.spec(f"{metric} during training")
    assert "Other metrics" not in asha_page.text and "Pareto" not in asha_page.text


def test_importance_of_keys(nsga2_page, nsga2_data):
    labels = {key.label: key.name for key in nsga2_data.keys}
    for metric, title in (("psnr_hole", NAME), ("dice", "Dice"), ("landmark_error", "Landmark error")):
        rows = nsga2_page.spec(title).rows
        assert {labels[row["key"]]: row["share"] for row in rows} == nsga2_data.importance[metric]
        if metric == "psnr_hole":
            assert rows == sorted(rows, key=lambda row: -row["share"])


@pytest.mark.parametrize("sign", [1, -1])
def test_the_range_is_that_of_the_full_length_runs(sign):
    full, stopped = [sign * value for value in (10.0, 11.0, 12.0)], sign * 2.0

    def contains(value: float, always: list[float]) -> bool:
        low, high = metric_limits(Metric("m", "max" if sign > 0 else "min"), [*full, stopped], always)
        return low <= value <= high

    assert all(contains(value, full) for value in full) and not contains(stopped, full)
    assert contains(stopped, full[:2])


def test_ticks_are_round():
    log = round_ticks(np.log10(30), np.log10(300), log=True)
    assert [10**at for at in log] == pytest.approx([30, 100, 300])
    assert round_ticks(0.013, 0.83, log=False) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert round_ticks(2, 2, log=False) == [2]
    # Between two digits of a logarithmic axis.
    for ends, ticks in (((1.1e-4, 1.9e-4), [1.2e-4, 1.4e-4, 1.6e-4, 1.8e-4]), ((2.1, 2.9), [2.2, 2.4, 2.6, 2.8])):
        assert [10**at for at in round_ticks(*np.log10(ends), log=True)] == pytest.approx(ticks)


def test_an_axis_of_a_key_has_its_points_and_the_ends_of_its_space():
    key = Key("a", "a", "loguniform", low=10, high=1000)
    assert key_ends(key, [0.5, 2]) == (0.5, 3) and key_ends(key, []) == (1, 3)
    assert key_ends(Key("a", "a", "uniform"), []) == (0, 1) and key_ends(Key("a", "a", "uniform"), [4]) == (4, 4)
