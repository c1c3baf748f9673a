import re
from pathlib import Path

from collagan_dist.report.run_page import _unique_names


def test_pictures(page, comparison_page):
    columns = "Columns from left to right: input, completed, original, labels, true labels, landmarks, true landmarks."
    wanted = [f"Sample pictures at step {step}. {columns}" for step in (12, 4, 8)]
    wanted += [f"Evaluation: {name}" for name in ("test-block", "test-O1", "test-O1-blended")]
    assert [picture["alt"] for picture in page.pictures()] == wanted
    # The newest of the other run is damaged; of its 14 earlier ones six are shown.
    assert "step-00000060.png cannot be shown" in comparison_page.text
    steps = [picture["alt"].split(".")[0].split()[-1] for picture in comparison_page.pictures()[6:12]]
    assert steps[0] == "4" and steps[-1] == "56" and len(set(steps)) == 6


def test_settings_data_and_world(page):
    changed = {row[0]: row[1:] for row in page.rows if len(row) == 3}
    assert changed["schedule.steps"][0] == "12" != changed["schedule.steps"][1]
    # The command that made the run, and the one that continues it.
    assert "collagan train small.yaml" in page.text
    assert re.search(r"train \S+/demo/config\.yaml --out \S+/demo\b", page.text)
    assert page.row("generator.lr")[1] == "0.0002" and page.row("steps")[1] == "12"
    assert page.row("splits.train")[1] == "48" and page.row("command")[1] == "collagan train small.yaml"


def test_runs_of_one_name_are_told_apart_by_their_paths(comparison_page):
    assert _unique_names([Path("/runs/a/same"), Path("/runs/b/same")]) == ["a/same", "b/same"]
    assert comparison_page.values("href")[:2] == ["#r0", "#r1"] and {"r0", "r1"} <= set(comparison_page.values("id"))
