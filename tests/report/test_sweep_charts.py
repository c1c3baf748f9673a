import re

import numpy as np
import pytest

from collagan_dist.report.sensitivity import sensitivity
from tests.report.page_reader import is_affine


def test_history_has_every_trial(asha_page, asha_data):
    chart = asha_page.chart("PSNR, in the hole of every trial")
    marks, trials = chart.trials(), asha_data.searched
    assert set(marks) == {trial.number for trial in trials}
    full = [trial for trial in trials if trial.status == "done"]
    assert is_affine([marks[trial.number][0][0] for trial in trials], [trial.number for trial in trials])
    assert is_affine([-marks[trial.number][0][1] for trial in full], [trial.scores["psnr_hole"] for trial in full])
    for trial in full:
        assert f"trial {trial.number}, done: {trial.scores['psnr_hole']:.2f} dB after 216 samples</title>" in chart.svg
    # The step line passes through every full-length run that was the best so far.
    path = re.findall(r'<path d="([^"]*)" clip-path="[^"]*" style="[^"]*--s1', chart.svg)[0]
    heights = list(dict.fromkeys(float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", path)))
    lowest = np.minimum.accumulate([marks[trial.number][0][1] for trial in full])  # y grows downwards
    assert heights == pytest.approx(sorted(set(lowest), reverse=True), abs=0.02)


def test_curves_have_every_evaluation(asha_page, asha_data):
    lines = asha_page.chart("PSNR, in the hole during training").trials()
    curves = {trial.number: trial.curves["psnr_hole"] for trial in asha_data.searched if trial.curves}
    assert {n: len(curve) for n, curve in curves.items()} == {n: len(line) for n, line in lines.items()}
    true = [point for curve in curves.values() for point in curve]
    drawn = [point for number in curves for point in lines[number]]
    assert is_affine([x for x, _ in drawn], [samples for samples, _ in true])
    assert is_affine([-y for _, y in drawn], [value for _, value in true])


def test_each_key_has_a_chart_with_its_means_and_sentences(asha_page, asha_data):
    for key in asha_data.keys:
        found, chart = sensitivity(asha_data, key, asha_data.main), asha_page.chart(key.label)
        assert f"of 38 trials against {key.label}. Means of bins: " in chart.description
        assert all(f": {bin.mean:.2f}" in chart.description for bin in found.bins)
        assert all(sentence in asha_page.text for sentence in found.sentences)


def test_other_metrics_have_charts_too(nsga2_page, asha_page):
    for metric in ("PSNR, in the hole", "Dice", "Landmark error"):
        assert nsga2_page.chart(f"{metric} of every trial") and nsga2_page.chart(f"{metric} during training")
    assert "Other metrics" not in asha_page.text and "Pareto" not in asha_page.text
