"""The page of a sweep in every state."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from collagan_dist.data.shards.manifest import Manifest
from tests.report.page_reader import Page, read_report
from tests.report.simulated_sweep import ASHA, CHOICE, REC, SimulatedSweep


def test_pictures_of_the_best_and_the_paper(asha_page: Page, asha: SimulatedSweep) -> None:
    best = json.loads((asha.out / "sweep.json").read_text())["best"]
    alts = [picture["alt"] for picture in asha_page.pictures()]
    assert [alt.split(" Columns")[0] for alt in alts] == [
        f"Trial {best}, the best. Sample pictures at step 12.",
        "Trial 0, the paper's λ. Sample pictures at step 12.",
    ]
    assert (
        "Repetitions over other seeds are not shown" in asha_page.text and "was stopped early shows" in asha_page.text
    )


def test_a_damaged_trial_becomes_a_note(asha: SimulatedSweep, asha_page: Page, tmp_path: Path) -> None:
    path = Path(shutil.copytree(asha.out, tmp_path / "sweep"))
    best = json.loads((path / "sweep.json").read_text())["best"]
    (path / f"trials/t{best:03d}/grids/step-00000012.png").write_bytes(b"none")
    (path / "trials/t000/metrics.jsonl").write_text('{"kind": "ev\n{"kind": "event"}\n')
    page = read_report(path)
    for note in ("step-00000012.png cannot be shown", "The curve of trial 0 is left out", "The pictures of trial 0 are left out"):  # fmt: skip
        assert note in page.text
    assert not page.pictures()


@pytest.mark.parametrize("segments", [0, 1, 8, 14])
def test_an_interrupted_sweep(shards: Manifest, tmp_path: Path, segments: int) -> None:
    sweep = SimulatedSweep(tmp_path / "sweep", Path(str(shards.folder)), 16, failing=(0, 3)).run(segments)
    page = read_report(sweep.out)
    assert "interrupted: the same command continues it" in page.text
    said = {0: "No trial has started yet.", 1: "Every trial failed; the reasons are below."}
    assert said.get(segments, "trials by PSNR in the hole") in page.text or segments == 8  # fmt: skip
    header = next((row for row in page.rows if row[:2] == ["Trial", "Role"]), [])
    listed = [row[0] for row in page.rows if header and len(row) == len(header)][1:]
    assert listed == [str(trial.number) for trial in sweep.trials]


def test_pbt_has_generations(shards: Manifest, tmp_path: Path) -> None:
    space = {**ASHA, "scheduler": "none", "space": {REC: ASHA["space"][REC]}}
    sweep = SimulatedSweep(tmp_path / "sweep", Path(str(shards.folder)), 4, space=space).run()
    edit(sweep.out, scheduler="pbt")
    page = read_report(sweep.out)
    assert page.row("generations, in samples") and "copy the best" in page.row("scheduler")[1]


STRANGE: dict[str, dict[str, Any]] = {
    "all alike": {"psnr_hole": "18.0", REC: "50"},
    "not finite": {"psnr_hole": "nan", REC: "inf"},
    "words for numbers": {REC: "auto"},
    "unknown values": {CHOICE: "other", "status": "odd", "role": "odd"},
    "all failed": {"status": "failed", "psnr_hole": "", "samples": "", "reason": "CUDA out of memory"},
    "empty": dict.fromkeys(("status", "steps", "role", "seed", "samples", "restarts", "reason", "psnr_hole", REC), ""),
}  # fmt: skip


@pytest.mark.parametrize("cells", STRANGE.values(), ids=STRANGE)
def test_strange_cells_have_a_page(nsga2: SimulatedSweep, tmp_path: Path, cells: dict[str, str]) -> None:
    for name in ("sweep.json", "trials.csv"):
        shutil.copy(nsga2.out / name, tmp_path)
    table = read_csv(tmp_path)
    write_csv(tmp_path, [row | cells for row in table], list(table[0]))
    page = read_report(tmp_path)
    assert "nan" not in page.text.lower().split() and "None" not in page.text
    header = next(row for row in page.rows if row[:2] == ["Trial", "Role"])
    assert len([row for row in page.rows if len(row) == len(header)]) == 25


def test_a_missing_column_is_no_error(nsga2: SimulatedSweep, tmp_path: Path) -> None:
    shutil.copy(nsga2.out / "sweep.json", tmp_path)
    table = read_csv(nsga2.out)
    gone = ("status", "role", "dice", REC, "samples", "seed", "reason", "steps")
    write_csv(tmp_path, table, [name for name in table[0] if name not in gone])
    assert read_report(tmp_path).row("23")[1] == "search"


def edit(folder: Path, **changes: Any) -> None:
    found = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps(found | changes))


def read_csv(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write_csv(folder: Path, table: list[dict[str, str]], columns: list[str]) -> None:
    with (folder / "trials.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(table)
