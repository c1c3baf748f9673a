import re

import pytest

from collagan_dist.report.pareto_chart import undominated
from tests.report.page_reader import is_affine


@pytest.mark.parametrize(
    ("title", "name"),
    [("Dice, larger is better", "dice"), ("Landmark error (px), smaller is better", "landmark_error")],
)
def test_trials_are_at_their_values_and_the_front_is_numbered(nsga2_page, nsga2_data, title, name):
    chart, trials, front = nsga2_page.chart(title), nsga2_data.trials, nsga2_data.front
    marks = chart.trials()
    assert set(marks) == {trial.number for trial in trials}
    for at, metric, sign in ((0, "psnr_hole", 1), (1, name, -1)):
        drawn = [sign * marks[trial.number][0][at] for trial in trials]
        assert is_affine(drawn, [trial.scores[metric] for trial in trials])
    assert set(map(str, front)) <= set(re.findall(r">(\d+)</text>", chart.svg))
    assert all(f"trial {number} (" in chart.description for number in front)


def test_the_line_never_turns_back(nsga2_data):
    across, _, down = nsga2_data.metrics
    pairs = {trial.number: (trial.scores[across.name], trial.scores[down.name]) for trial in nsga2_data.trials}
    line = {trial.number for trial in undominated(nsga2_data.trials, across, down)}
    errors = [error for _, error in sorted(pairs[number] for number in line)]
    assert errors == sorted(errors)
    assert line == {
        n for n, (x, y) in pairs.items() if all(x >= other or y <= error for other, error in pairs.values())
    }
