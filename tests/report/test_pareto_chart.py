import re
from itertools import combinations

from collagan_dist.report.pareto_chart import undominated
from tests.report.page_reader import is_affine


def test_trials_are_at_their_values_and_the_front_is_numbered(nsga2_page, nsga2_data):
    trials, front = {trial.number: trial for trial in nsga2_data.trials}, nsga2_data.front
    title = "Landmark error (px), smaller is better"
    chart = nsga2_page.spec(title)
    marks = chart.marks(1)
    assert sorted(row["trial"] for row in chart.rows) == sorted(trials)
    for at, metric, sign in ((0, "psnr_hole", 1), (1, "landmark_error", -1)):
        true = [trials[row["trial"]].scores[metric] for row in chart.rows]
        assert is_affine([sign * mark[at] for mark in marks], true)
    assert {row["trial"] for row in chart.rows if row["kind"] == "Pareto-optimal"} == set(front) - {0}
    assert {row["trial"] for row in chart.layer(2)} == set(front)
    assert all(f">{number}</text>" in chart.svg for number in front)
    for name in (title, "Dice, larger is better"):
        assert all(f"trial {number} (" in nsga2_page.chart(name).description for number in front)


def test_the_line_has_the_trials_that_no_other_beats(nsga2_page, nsga2_data):
    across, _, down = nsga2_data.metrics
    pairs = {trial.number: (trial.scores[across.name], trial.scores[down.name]) for trial in nsga2_data.trials}
    wanted = {n for n, (x, y) in pairs.items() if all(x >= other or y <= error for other, error in pairs.values())}
    assert {trial.number for trial in undominated(nsga2_data.trials, across, down)} == wanted
    line = nsga2_page.spec("Landmark error (px), smaller is better").layer(0)
    assert sorted((row["x"], row["y"]) for row in line) == sorted(pairs[number] for number in wanted)


def test_numbers_of_near_trials_do_not_cover_each_other(nsga2_page):
    for title in ("Dice, larger is better", "Landmark error (px), smaller is better"):
        layer = re.search(r"layer_2_marks.*?</g>", nsga2_page.spec(title).svg, re.DOTALL)[0]
        found = [(float(x), float(y)) for x, y in re.findall(r"translate\(([-\d.e]+),([-\d.e]+)\)", layer)]
        # Numbers have two digits of 11 px.
        assert len(found) == 4 and all(
            abs(a[0] - b[0]) > 12 or abs(a[1] - b[1]) > 10 for a, b in combinations(found, 2)
        )
