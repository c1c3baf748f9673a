import json

import pytest

from collagan_dist.report.run_data import read_run
from collagan_dist.report.summary import differences_table, headline, summary
from tests.report.conftest import ODD_NAME


def test_progress_and_model(page, altered):
    assert "M*_isd (inpainting, segmentation, landmarks) · 12 of 12 steps" in page.text
    tasks = ["inpainting", "segmentation", "depth_map"]
    longer = read_run(altered(config={"schedule.steps": 2000, "model.tasks": tasks}))
    assert summary(longer) == "M*_is+depth_map (inpainting, segmentation, depth map) · 12 of 2,000 steps, not finished"


@pytest.mark.parametrize(("psnr", "words"), [(30.0, "beats biharmonic by"), (1.0, "is behind biharmonic by")])
def test_headline_compares_with_the_best_baseline(altered, psnr, words):
    path = altered(psnr_hole=psnr)
    metrics = json.loads((path / "metrics.json").read_text())
    rival, error = metrics["baselines"]["biharmonic"]["psnr_hole"], metrics["se"]["psnr_hole"]
    assert rival > metrics["baselines"]["mean_colour"]["psnr_hole"]
    against = f"{abs(psnr - rival):.2f} dB inside the hole ({psnr:.2f} ± {error:.2f} against {rival:.2f} dB)"
    assert headline(read_run(path)).startswith(f"Completed {words} {against}; Dice ")


def test_cards(page, run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert "Steps 12 of 12 planned" in page.text and "median while training" in page.text
    assert f"PSNR, in the hole {metrics['psnr_hole']:.2f} dB ± {metrics['se']['psnr_hole']:.2f}" in page.text
    assert f"Landmark error, average {metrics['landmark_error']['mean']:.2f} px" in page.text


def test_comparison_marks_the_best_run_and_lists_settings_that_differ(comparison_page, run):
    page = comparison_page
    header = next(row for row in page.rows if row[:1] == ["Run"])
    cells = {name: dict(zip(header, page.row(name, len(header)), strict=True)) for name in ("demo", ODD_NAME)}
    assert cells[ODD_NAME]["PSNR, in the hole (dB)"].startswith("40.00 ★")
    assert "★" not in cells["demo"]["PSNR, in the hole (dB)"] and "★" in cells["demo"]["Landmark error (px)"]
    assert page.row("optim.generator.lr")[1:] == ["0.0002", "0.0004"]
    assert not differences_table([read_run(run)] * 2, ["a", "b"]).rows
