"""The chart of the Pareto front."""

from __future__ import annotations

import re

from collagan_dist.report.pareto_chart import undominated
from collagan_dist.report.sweep_data import read_sweep
from tests.report.page_reader import Page, is_affine
from tests.report.simulated_sweep import SimulatedSweep


def test_trials_are_at_their_values_and_the_front_is_numbered(nsga2_page: Page, nsga2: SimulatedSweep) -> None:
    sweep = read_sweep(nsga2.out)
    for title, name, sign in (("Dice, larger is better", "dice", 1), ("Landmark error (px), smaller is better", "landmark_error", -1)):  # fmt: skip
        chart = nsga2_page.chart(title)
        marks = chart.trials()
        assert set(marks) == {trial.number for trial in sweep.trials}
        for at, metric in ((0, "psnr_hole"), (1, name)):
            drawn = [(1, -1)[at] * marks[trial.number][0][at] for trial in sweep.trials]
            assert is_affine(drawn, [trial.scores[metric] for trial in sweep.trials])
        assert set(map(str, sweep.front)) <= set(re.findall(r">(\d+)</text>", chart.svg))
        assert all(f"trial {number} (" in chart.description for number in sweep.front) and sign


def test_the_line_never_turns_back(nsga2: SimulatedSweep) -> None:
    sweep = read_sweep(nsga2.out)
    across, _, down = sweep.metrics
    line = undominated(sweep.trials, across, down)
    pairs = sorted((trial.scores[across.name], trial.scores[down.name]) for trial in line)
    assert [error for _, error in pairs] == sorted(error for _, error in pairs)
    better = [one for one in sweep.trials if all(
        one.scores[across.name] >= other.scores[across.name] or one.scores[down.name] <= other.scores[down.name] for other in sweep.trials
    )]  # fmt: skip
    assert {trial.number for trial in line} == {trial.number for trial in better}
