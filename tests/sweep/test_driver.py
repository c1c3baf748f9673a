"""Real sweeps on a Ray cluster of this machine: what they leave, and that kills and interruptions change no result."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from collagan_dist.config.load import load_config
from collagan_dist.data.shards.manifest import Manifest
from tests.conftest import collagan
from tests.sweep.small import BATCH, FIRST, HALVING, SECOND, STEPS, Sweep, left_alone
from tests.training.small import equal, weights


@pytest.fixture(scope="module")
def undisturbed(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Six trials, halved twice, and the winner again with another seed."""
    sweep = Sweep(
        tmp_path_factory.mktemp("undisturbed"), Path(str(shards.folder)), HALVING, "--trials", 6, "--seeds", 1
    )
    sweep.run()
    return sweep


def test_result_files_of_a_sweep(undisturbed: Sweep) -> None:
    rows = undisturbed.rows()
    assert [row["role"] for row in rows] == ["paper", *["search"] * 5, "confirm", "confirm"]
    assert sorted(int(row["steps"]) for row in rows[:6]) == [FIRST] * 4 + [SECOND, STEPS]
    assert [row["status"] for row in rows if int(row["steps"]) == STEPS] == ["done"] * 3
    for row in rows:  # as many steps as its samples say, λ on the simplex
        assert int(row["samples"]) == BATCH * int(row["steps"])
        assert sum(
            float(row[f"loss.weights.{task}.adv"]) for task in ("inpainting", "segmentation", "landmarks")
        ) == pytest.approx(1)
    assert [float(rows[0][f"loss.weights.{task}.adv"]) for task in ("inpainting", "segmentation", "landmarks")] == [
        0.8,
        0.1,
        0.1,
    ]
    assert {row["seed"] for row in rows[6:]} == {"1"}
    (winner,) = [row for row in rows[:6] if row["status"] == "done"]
    best = load_config(str(undisturbed.out / "best.yaml"))
    assert str(best.optim.generator.lr) == winner["optim.generator.lr"] and best.schedule.steps == STEPS
    assert "<svg" in (undisturbed.out / "report.html").read_text()


def test_no_step_is_trained_twice(undisturbed: Sweep) -> None:
    """A trial that goes on from a rung goes on from its checkpoint, and only as far as it is promoted."""
    for number, row in enumerate(undisturbed.rows()):
        segments = {FIRST: [0], SECOND: [0, FIRST], STEPS: [0, FIRST, SECOND] if number < 6 else [0]}[int(row["steps"])]
        assert [step for _, step in undisturbed.starts(number)] == segments
        assert [line["step"] for line in undisturbed.lines(number, "eval")] == [*segments[1:], int(row["steps"])]


def test_a_trial_equals_an_ordinary_run(undisturbed: Sweep, tmp_path: Path) -> None:
    """The weights are those of `collagan train` on the trial's configuration, though it was trained in three segments."""
    (number,) = [int(row["trial"]) for row in undisturbed.rows()[:6] if row["status"] == "done"]
    collagan("train", undisturbed.trial(number) / "config.yaml", "--run", tmp_path / "run")
    assert equal(weights(tmp_path / "run", STEPS), weights(undisturbed.trial(number), STEPS))


def test_row_32_the_driver_is_killed(undisturbed: Sweep, shards: Manifest, tmp_path: Path) -> None:
    """kill -9 in the middle of a segment while trials wait at a rung; then Ctrl-C; the same command ends with the same sweep."""
    sweep = Sweep(tmp_path, Path(str(shards.folder)), HALVING, "--trials", 6, "--seeds", 1)
    with left_alone(sweep.start()) as process:
        sweep.until(process, lambda: any(sweep.saved(number) >= SECOND + 4 for number in range(6)))
        process.kill()
        process.wait()
    with left_alone(sweep.start()) as process:
        sweep.until(process, lambda: sweep.saved(7) >= 4)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 75, sweep.log.read_text()
    assert "the same command continues" in sweep.log.read_text()
    finished = {number: sweep.starts(number) for number, row in enumerate(sweep.rows()) if row["status"] == "done"}
    sweep.run()
    assert finished and all(sweep.starts(number) == starts for number, starts in finished.items())
    rows, expected = ([{**row, "restarts": "0"} for row in one.rows()] for one in (sweep, undisturbed))
    assert rows == expected
    for number, row in enumerate(rows):
        step = int(row["steps"])
        assert equal(weights(sweep.trial(number), step), weights(undisturbed.trial(number), step))
    assert not list(sweep.out.glob(".stop*")) and not (sweep.out / ".tune").exists()


def test_pbt_resumes_after_a_kill(shards: Manifest, tmp_path: Path) -> None:
    """Losers continue from the networks of winners, which their log tells; each exploit is carried out once.

    That a kill changes no decision of PBT is simulated in test_schedule.py.
    """
    space = {**HALVING, "scheduler": "pbt", "pbt": {"every": SECOND * BATCH, "quantile": 0.34}}
    sweep = Sweep(tmp_path, Path(str(shards.folder)), space, "--trials", 4)
    with left_alone(sweep.start()) as process:
        sweep.until(process, lambda: any(sweep.saved(number) > 2 * SECOND for number in range(4)))
        process.kill()
        process.wait()
    sweep.run()
    assert [row["status"] for row in sweep.rows()] == ["done"] * 4
    lineages = [json.loads((sweep.trial(number) / "trial.json").read_text())["lineage"] for number in range(4)]
    assert [sum(entry["at"] == at * BATCH for one in lineages for entry in one) for at in (SECOND, 2 * SECOND)] == [
        1,
        1,
    ]
    for number, lineage in enumerate(lineages):
        changed = [line["changed"] for line in sweep.lines(number, "event") if "changed" in line]
        assert len(changed) == len(lineage) and all("optim.generator.lr" in " ".join(one) for one in changed)
        evaluated = {line["step"]: line["psnr_hole"] for line in sweep.lines(number, "eval")}
        assert sorted(evaluated) == [SECOND, 2 * SECOND, STEPS]
        for entry in lineage:  # the donor was better there
            donor = {line["step"]: line["psnr_hole"] for line in sweep.lines(entry["from"], "eval")}
            assert donor[entry["at"] // BATCH] >= evaluated[entry["at"] // BATCH]


def test_the_folder_of_another_user_is_refused_by_the_command(shards: Manifest, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, Path(str(shards.folder)), HALVING, "--trials", 3)
    sweep.out.mkdir()
    os.chown(sweep.out, 12345, -1)
    assert "belongs to another user (id 12345)" in sweep.run(2) and not (sweep.out / "trials").exists()
