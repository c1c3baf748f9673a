import math
import re

from tests.report.page_reader import is_affine
from tests.report.simulated_sweep import ADV, LR, REC


def test_lines_pass_through_the_values(asha_page, asha_data):
    sweep, chart = asha_data, asha_page.chart("Keys and metric of every trial")
    lines = chart.trials()
    scored = [trial for trial in sweep.searched if trial.scores]
    assert set(lines) == {trial.number for trial in scored} and all(len(line) == 7 for line in lines.values())
    axes = [key.name for key in sweep.keys] + ["psnr_hole"]
    heights = {axis: [-lines[trial.number][at][1] for trial in scored] for at, axis in enumerate(axes)}
    for key in (REC, LR):
        assert is_affine(heights[key], [math.log(float(trial.values[key] or 0)) for trial in scored])
    assert is_affine(heights[ADV], [float(trial.values[ADV] or 0) for trial in scored])
    assert is_affine(heights["psnr_hole"], [trial.scores["psnr_hole"] for trial in scored])
    # Colours rank the trials by the metric, from the first of the ramp to the last.
    shades = {int(n): int(shade) for n, shade in re.findall(r'id="par-t(\d+)".*?--r(\d)', chart.svg.replace("\n", ""))}
    ranked = sorted((trial for trial in scored if trial.number not in (0, sweep.best)), key=lambda one: one.scores["psnr_hole"])  # fmt: skip
    found = [shades[trial.number] for trial in ranked]
    assert found == sorted(found) and found[0] == 0 and found[-1] == 8
