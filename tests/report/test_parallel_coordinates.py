import math

from tests.report.page_reader import is_affine
from tests.report.simulated_sweep import ADV, REC


def test_lines_pass_through_the_values(asha_page, asha_data):
    lines = asha_page.chart("Keys and metric of every trial").trials()
    scored = [trial for trial in asha_data.searched if trial.scores]
    assert set(lines) == {trial.number for trial in scored}
    axes = [key.name for key in asha_data.keys] + ["psnr_hole"]
    for axis, values in (
        (REC, [math.log(trial.values[REC]) for trial in scored]),
        (ADV, [trial.values[ADV] for trial in scored]),
        ("psnr_hole", [trial.scores["psnr_hole"] for trial in scored]),
    ):
        assert is_affine([-lines[trial.number][axes.index(axis)][1] for trial in scored], values)
