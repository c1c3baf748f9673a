import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import ODD_NAME

TASKS = ("inpainting", "segmentation", "landmarks")
LOSSES = {"rec": "Reconstruction loss", "adv": "Adversarial loss of the generator", "disc": "Discriminator loss"}
SINGLE = {
    "loss/total": "Total loss", "lr": "Learning rate", "images_per_s": "Pictures per second",
    "data_wait_share": "Share of time spent waiting for data", "checkpoint_wait_share": "Checkpoint wait share",
}  # fmt: skip
TERMS = "What each term adds to the total loss"
# What a reader finds for each key of a train line: the chart's title and the curve's label.
CURVES = {
    **{f"loss/{task}/{part}": (title, task.capitalize()) for part, title in LOSSES.items() for task in TASKS},
    **{f"accuracy/{task}": ("Accuracy of the discriminators", task.capitalize()) for task in TASKS},
    **{f"weighted/{task}/{part}": (TERMS, f"{task.capitalize()}, {part}") for task in TASKS for part in ("rec", "adv")},
    **{f"gradient/{name}": ("Norm of the gradient", name.capitalize()) for name in ("generator", "discriminators")},
    **{key: (title, title) for key, title in SINGLE.items()},
}


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["kind"] == kind]


@pytest.mark.parametrize("key", CURVES)
def test_every_number_of_the_train_lines_is_a_curve(page, run, key):
    rows, (title, label) = lines(run, "train"), CURVES[key]
    chart = page.chart(title)
    assert f"{label} {rows[-1][key]:.4g} at step 12" in chart.description
    values = [row[key] for row in rows]
    # Terms of the total loss differ by more than a factor of 30: their axis is logarithmic.
    shown = [math.log10(value) for value in values] if key.startswith("weighted/") else values
    assert chart.has_line([2, 4, 6, 8, 10, 12], shown)


def test_no_number_of_the_train_lines_is_forgotten(run):
    fields = {"kind", "step", "epoch", "samples"}
    assert set(lines(run, "train")[-1]) - fields == set(CURVES)


def test_curves_of_a_task_have_one_colour(page):
    legends = [chart for chart in page.charts() if chart.title.endswith("loss") or "Adversarial" in chart.title]
    assert len(legends) >= 3
    for title in ("Reconstruction loss", "Discriminator loss"):
        drawn = [f"--s{index}" for index in range(3) if f"--s{index}" in page.chart(title).svg]
        assert drawn == ["--s0", "--s1", "--s2"]


def test_references_and_resumes_are_marked(page):
    assert "undecided: ln 2" in page.chart("Discriminator loss").svg
    assert "guessing" in page.chart("Accuracy of the discriminators").svg
    assert "Biharmonic, in the hole" in page.chart("PSNR").svg and "Mean landmarks" in page.chart("Landmark error").svg
    # One dotted vertical, at the resume from step 8, two thirds of the way from 0 to 12.
    xs = [line for line in page.chart("Total loss").lines() if len(line) == 2 and line[0][0] == line[1][0]]
    points = next(line for line in page.chart("Total loss").lines() if len(line) == 6)
    assert [line[0][0] for line in xs] == pytest.approx([points[3][0]], abs=0.02)


def test_every_metric_of_the_evaluations_is_a_curve(page, run):
    rows = lines(run, "eval")
    for title, key in (("PSNR", "psnr"), ("SSIM", "ssim")):
        chart = page.chart(title)
        for label, name in (("Overall", key), ("In the hole", f"{key}_hole")):
            assert f"{label} {rows[-1][name]:.4g} at step 12" in chart.description
            assert chart.has_line([row["step"] for row in rows], [row[name] for row in rows])
    for title, key, labels in (
        ("Dice", "dice", {"": "Overall", "_hole": "In the hole", "_per_image": "Per picture"}),
        ("Landmark error", "landmark_error", {"": "Overall", "_hole": "In the hole", "_argmax": "By arg-max"}),
    ):
        for suffix, label in labels.items():
            assert f"{label} {rows[-1][key + suffix]['mean']:.4g} at step 12" in page.chart(title).description
    single = page.chart("Landmark error: each one")
    for part in ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth"):
        label = part.replace("_", " ").capitalize()
        assert f"{label} {rows[-1]['landmark_error'][part]:.4g} at step 12" in single.description


def test_a_new_task_needs_no_code(comparison_page):
    assert "Depth map 0.125 at step 14" in comparison_page.chart("Reconstruction loss", -1).description
    assert "Depth map 0.5 at step 14" in comparison_page.chart("Loss, edge").description


def test_runs_are_compared_by_the_keys_that_they_share(comparison_page, run):
    total = comparison_page.chart("Total loss").description
    assert (
        f"demo {lines(run, 'train')[-1]['loss/total']:.4g} at step 12" in total
        and f"{ODD_NAME} 1.5 at step 14" in total
    )
    shared = {chart.title for chart in comparison_page.charts() if f"{ODD_NAME} " in chart.description}
    assert {"PSNR, in the hole", "Dice, average", "Reconstruction loss: inpainting"} <= shared
    assert not any("Only here" in title for title in shared)
