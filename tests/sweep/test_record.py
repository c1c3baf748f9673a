"""Trials as their folders tell of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from collagan_dist.errors import DataError
from collagan_dist.sweep import record
from collagan_dist.sweep.driver import adopt, recover
from collagan_dist.sweep.record import Trial

TRIAL = Trial(
    0,
    "search",
    {"loss.adv": "ns"},
    3,
    4,
    {"note": [1]},
    40,
    ({"at": 8, "from": 1, "values": {}},),
    (4, "its node is gone"),
    2,
)


def evaluated(out: Path, trial: Trial, saved: int, *steps: int) -> Path:
    """Its folder, with evaluations of steps and checkpoints up to one of them."""
    record.write(out, trial)
    place = record.folder(out, trial)
    (place / "checkpoints" / f"step-{saved:08d}").mkdir(parents=True)
    rows = [{"kind": "eval", "step": step, "psnr": step / 2, "dice": {"face": 0.9, "mean": 0.5}} for step in steps]
    (place / "metrics.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows) + '{"kind": "eval", "step": 4, "ps'
    )
    return place


def test_a_trial_is_read_as_it_was_written(tmp_path: Path) -> None:
    record.write(tmp_path, TRIAL)
    assert record.read(tmp_path) == [TRIAL]
    assert record.retried(TRIAL).failure is None  # what the cluster did is tried again, its own errors are not
    assert record.retried(replace(TRIAL, failure=(6, "NaN"))).failure == (6, "NaN")


def test_a_result_counts_when_its_checkpoint_is_there(tmp_path: Path) -> None:
    """Without, the step would be trained again, and evaluated again. A line cut short is none."""
    evaluated(tmp_path, TRIAL, 2, 1, 2, 3)
    (trial,) = record.read(tmp_path)
    assert trial.results == {4: {"psnr": 0.5, "dice": 0.5}, 8: {"psnr": 1.0, "dice": 0.5}}
    assert trial.reached == 8 and trial.has(7) and trial.at(8) == trial.at(5) and not trial.has(9)


def test_what_is_none_of_ours_is_named(tmp_path: Path) -> None:
    record.write(tmp_path, TRIAL)
    record.write(tmp_path, replace(TRIAL, number=2))
    with pytest.raises(DataError, match="trials are missing"):
        record.read(tmp_path)
    (tmp_path / "trials/t002/trial.json").write_text('{"number": 2}')
    with pytest.raises(DataError, match=r"t002/trial\.json: is no trial of a sweep .* give another --out"):
        record.read(tmp_path)


def test_another_runs_checkpoint_takes_the_place_of_ones_own(tmp_path: Path) -> None:
    """As links, again after a kill in the middle, and nothing else changes."""
    for name in ("mine", "theirs"):
        (tmp_path / name / "checkpoints/step-00000008").mkdir(parents=True)
        (tmp_path / name / "checkpoints/step-00000008/weights").write_text(name)
    (tmp_path / "mine/checkpoints/.step-00000008.adopted").mkdir()
    for _ in range(2):
        adopt(tmp_path / "mine", tmp_path / "theirs", 8)
        assert (tmp_path / "mine/checkpoints/step-00000008/weights").read_text() == "theirs"
    (only,) = (tmp_path / "mine/checkpoints").iterdir()
    assert (only / "weights").stat().st_nlink == 2 and (tmp_path / "theirs/checkpoints/step-00000008/weights").exists()


def test_an_exchange_that_was_killed_between_its_renames_is_taken_back(tmp_path: Path) -> None:
    """Else the member would have to go back to an older checkpoint, or to none."""
    aside = tmp_path / "trials/t000/checkpoints/.step-00000008.own"
    aside.mkdir(parents=True)
    (aside / "weights").write_text("mine")
    recover(tmp_path)
    assert (tmp_path / "trials/t000/checkpoints/step-00000008/weights").read_text() == "mine"
