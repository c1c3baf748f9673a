import re
from dataclasses import replace

import pytest

from collagan_dist.report.sweep_tables import settings_table
from tests.report.simulated_sweep import ADV, CHOICE, LR, REC


def test_the_table_has_every_trial(asha_page, asha_data):
    header = next(row for row in asha_page.rows if row[:3] == ["Trial", "Role", "Status"])
    runs = [trial for trial in asha_data.searched if trial.status == "done"]
    metrics = (("PSNR, in the hole (dB)", "psnr_hole", 2, 1), ("Landmark error (px)", "landmark_error", 2, -1), ("Dice", "dice", 3, 1))  # fmt: skip
    best = {name: max(runs, key=lambda one: sign * one.scores[name]).number for _, name, _, sign in metrics}
    for trial in asha_data.trials:
        cells = dict(zip(header, asha_page.row(str(trial.number), len(header)), strict=True))
        assert cells["Status"] == {"stopped": "stopped early"}.get(trial.status, trial.status)
        assert cells["Samples"] == f"{trial.samples:,}" and cells["discriminators"] == trial.values[CHOICE]
        assert cells["inpainting.rec"] == f"{trial.values[REC]:.4g}" and cells["Reason"] == trial.reason
        for column, name, digits, _ in metrics:
            shown = f"{trial.scores[name]:.{digits}f}" if trial.scores else "–"
            assert cells[column] == shown + (" ★" if trial.number == best[name] else "")
    for number in ("5", "11"):
        assert asha_page.row(number, 4) == [number, "0", "2", "the loss is NaN at step 6, after 3 rollbacks"]
    roles = [asha_page.row(str(number), len(header))[1] for number in (0, 1, asha_data.best, 40)]
    assert roles == ["paper", "search", "search, best", "confirm, seed 1"]


def test_the_best_trial_and_its_options(asha_page, asha_data):
    best = asha_data.best_trial
    assert asha_page.row("inpainting.rec") == ["inpainting.rec", f"{best.values[REC]:.4g}", "100", "30 to 300, logarithmic"]  # fmt: skip
    assert asha_page.row("PSNR, in the hole (dB)")[1] == f"{best.scores['psnr_hole']:.2f}"
    assert f"--set {REC}={best.values[REC]:.6g}" in asha_page.text
    assert f"--set {CHOICE}={best.values[CHOICE]}" in asha_page.text


def test_settings_and_space(asha_page, nsga2_page, asha_data):
    assert asha_page.row("rungs, in samples")[1] == "24 · 72 · 216" and asha_page.row("seed")[1] == "0"
    assert asha_page.row("trials planned")[1] == "40" and asha_page.row("scheduler")[1].startswith("ASHA")
    assert nsga2_page.row("search")[1].startswith("NSGA-II") and nsga2_page.row("scheduler")[1].startswith("none")
    metrics = "psnr_hole (larger is better), dice (larger is better), landmark_error (smaller is better)"
    assert nsga2_page.row("metrics")[1] == metrics
    pbt = {key: cells[0].text for key, cells in settings_table(replace(asha_data, scheduler="pbt")).rows}
    assert pbt["generations, in samples"] == "24 · 72 · 216" and "copy the best" in pbt["scheduler"]
    for key, paper in ((REC, "100"), (ADV, "0.8"), (LR, "0.0002"), (CHOICE, "per_task")):
        assert asha_page.row(key)[2] == paper


def test_importance_of_keys(nsga2_page, nsga2_data):
    shares = nsga2_data.importance
    bars = re.findall(r'class="name-of">([^<]*)</span>\s*<span class="track"[^>]*><span style="width: ([\d.]+)%', nsga2_page.source)  # fmt: skip
    assert len(bars) == 18 and bars[:6] == sorted(bars[:6], key=lambda bar: -float(bar[1]))
    assert bars[0] == ("inpainting.rec", f"{100 * shares['psnr_hole'][REC]:.1f}")
    for first in (0, 6, 12):
        assert sum(float(width) for _, width in bars[first : first + 6]) == pytest.approx(100, abs=0.4)
