import math

from tests.report.page_reader import is_affine
from tests.report.simulated_sweep import ADV, REC


def test_lines_pass_through_the_values(asha_page, asha_data):
    chart = asha_page.spec("Parallel coordinates")
    lines = {row["trial"]: line for row, line in zip(chart.rows, chart.lines(0), strict=True)}
    scored = [trial for trial in asha_data.searched if trial.scores]
    assert set(lines) == {trial.number for trial in scored} and list(lines)[-1] == asha_data.best
    axes = [key.name for key in asha_data.keys] + ["psnr_hole"]
    for axis, values in (
        (REC, [math.log(trial.values[REC]) for trial in scored]),
        (ADV, [trial.values[ADV] for trial in scored]),
        ("psnr_hole", [trial.scores["psnr_hole"] for trial in scored]),
    ):
        assert is_affine([-lines[trial.number][axes.index(axis)][1] for trial in scored], values)


def test_axes_have_ticks_where_their_values_are(asha_page, asha_data):
    chart = asha_page.spec("Parallel coordinates")
    rec = [(row["y"], row["value"]) for row in chart.layer(2) if row["axis"] == 0]
    assert [value for _, value in rec] == [30, 100, 300]
    assert is_affine([y for y, _ in rec], [math.log(value) for _, value in rec])
    choice = [row["value"] for row in chart.layer(2) if row["axis"] == len(asha_data.keys) - 1]
    assert choice == ["per_task", "shared"] and ">per_task</text>" in chart.svg and ">100</text>" in chart.svg
    assert len(chart.layer(3)) == len(asha_data.keys) + 1


def test_better_trials_are_darker(asha_page, asha_data):
    rows = asha_page.spec("Parallel coordinates").rows
    ranked = sorted(rows, key=lambda row: asha_data.trials[row["trial"]].scores["psnr_hole"])
    levels = [row["level"] for row in ranked]
    assert levels == sorted(levels) and (levels[0], levels[-1]) == (0, 8)
    assert {row["look"] for row in rows if row["trial"] in (0, asha_data.best)} == {"the paper's λ", "best"}
