"""The page of a run and of several: pictures, details, damaged files, comparison."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.report.page_reader import Page, read_report


def test_pictures(page: Page, altered: Callable[..., Path]) -> None:
    pictures = page.pictures()
    columns = "Columns from left to right: input, completed, labels, landmarks, original, true labels, true landmarks."
    grids = [f"Sample pictures at step {step}. {columns}" for step in (12, 4, 8)]
    assert [picture["alt"] for picture in pictures[:3]] == grids
    evaluations = ["Evaluation: test-block", "Evaluation: test-O1", "Evaluation: test-O1-blended"]
    assert [picture["alt"] for picture in pictures[3:]] == evaluations
    path = altered()
    grid = (path / "grids/step-00000004.png").read_bytes()
    for step in range(16, 61, 4):
        (path / f"grids/step-{step:08d}.png").write_bytes(grid)
    steps = [picture["alt"].split(".")[0].split()[-1] for picture in read_report(path).pictures()[:7]]
    assert steps[0] == "60" and steps[1] == "4" and steps[-1] == "56" and len(set(steps)) == 7


def test_a_damaged_picture_becomes_a_note(altered: Callable[..., Path]) -> None:
    path = altered()
    grid = path / "grids/step-00000012.png"
    grid.write_bytes(grid.read_bytes()[:2000])
    page = read_report(path)
    assert "step-00000012.png cannot be shown" in page.text
    assert [picture["alt"].split(".")[0] for picture in page.pictures()[:2]] == [
        "Sample pictures at step 4",
        "Sample pictures at step 8",
    ]


def test_settings_data_and_world(page: Page, run: Path) -> None:
    data = json.loads((run / "data.json").read_text())
    world = json.loads((run / "world.json").read_text())
    assert page.row("generator.lr")[1] == "0.0002" and page.row("steps")[1] == "12"
    assert page.row("splits.train.samples" if isinstance(data["splits"]["train"], dict) else "splits.train")
    assert page.row("command")[1] == world["command"] == "collagan train small.yaml"


def test_a_run_without_a_step(altered: Callable[..., Path]) -> None:
    path = altered()
    (path / "metrics.jsonl").write_text("")
    for name in ("metrics.json", "evaluation/test-block.json", "evaluation/test-O1.json"):
        (path / name).unlink()
    (path / "evaluation/test-O1-blended.json").unlink()
    text = read_report(path).text
    assert "No steps yet." in text and "Not evaluated yet." in text and "No events." in text


def test_runs_of_one_name_are_told_apart_by_their_paths(altered: Callable[..., Path]) -> None:
    folders = [altered("a/same"), altered("b/same")]
    for folder in folders:
        (folder / "metrics.jsonl").unlink()
        shutil.rmtree(folder / "grids")
    page = read_report(*folders)
    header = next(row for row in page.rows if row[:1] == ["Run"])
    assert page.row("a/same", len(header)) and page.row("b/same", len(header))
    assert page.values("href")[:2] == ["#r0", "#r1"] and {"r0", "r1"} <= set(page.values("id"))
