import re

from collagan_dist.report.pareto_chart import undominated
from tests.report.page_reader import is_affine


def test_trials_are_at_their_values_and_the_front_is_numbered(nsga2_page, nsga2_data):
    trials, front = nsga2_data.trials, nsga2_data.front
    chart = nsga2_page.chart("Landmark error (px), smaller is better")
    marks = chart.trials()
    assert set(marks) == {trial.number for trial in trials}
    for at, metric, sign in ((0, "psnr_hole", 1), (1, "landmark_error", -1)):
        drawn = [sign * marks[trial.number][0][at] for trial in trials]
        assert is_affine(drawn, [trial.scores[metric] for trial in trials])
    assert set(map(str, front)) <= set(re.findall(r">(\d+)</text>", chart.svg))
    for title in (chart.title, "Dice, larger is better"):
        assert all(f"trial {number} (" in nsga2_page.chart(title).description for number in front)


def test_the_line_has_the_trials_that_no_other_beats(nsga2_data):
    across, _, down = nsga2_data.metrics
    pairs = {trial.number: (trial.scores[across.name], trial.scores[down.name]) for trial in nsga2_data.trials}
    assert {trial.number for trial in undominated(nsga2_data.trials, across, down)} == {
        n for n, (x, y) in pairs.items() if all(x >= other or y <= error for other, error in pairs.values())
    }
