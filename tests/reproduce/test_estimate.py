"""--dry-run: real steps of what has not begun, the runs' own logs of what has; nothing is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from collagan_dist.commands.tables import plan_table
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.reproduce import estimate
from collagan_dist.reproduce.plan import ReproduceOptions
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.reproduce.small import write_small


def options(config: Path, shards: Manifest, out: Path) -> ReproduceOptions:
    return ReproduceOptions(str(config), str(shards.folder), out, (3,), (), scale=0.01, ranks=1)


def test_a_few_steps_of_each_model(
    shards: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(estimate.driver.plan.paper.paper()["table3"], "rows", {"M_d": [], "M*_isd": []})
    lines = estimate.estimate(options(write_small(tmp_path), shards, tmp_path / "out"))
    assert [(line.run.name, line.run.steps, line.done) for line in lines] == [("M*_isd", 3, 0), ("M_d", 3, 0)]
    assert all(line.seconds is not None and 0 < line.seconds < 60 for line in lines)
    large, small = (line.bytes for line in lines)
    assert large is not None and small is not None and large > small > 2 * 4 * 50_000  # two checkpoints
    assert not (tmp_path / "out").exists()
    plan_table(lines)
    shown = capsys.readouterr().out
    assert "M*_isd" in shown and "24" in shown and "0%" in shown


def test_what_has_begun_tells_its_own_rate(
    undisturbed: Path, shards: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(estimate.driver.plan.paper.paper()["table3"], "rows", {"M_d": [], "M_id": []})
    monkeypatch.setattr(estimate, "_timed", lambda *_: pytest.fail("it was timed again"))
    before = {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*")}
    lines = estimate.estimate(options(undisturbed.parent / "small.yaml", shards, undisturbed))
    assert [(line.done, line.scored, line.seconds) for line in lines] == [(3, True, 0.0)] * 2
    newest = [
        sum(f.stat().st_size for f in (line.run.folder / "checkpoints/step-00000003").iterdir()) for line in lines
    ]
    assert [line.bytes for line in lines] == [2 * size for size in newest]
    assert before == {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*")}


def test_gfc_is_timed_with_the_parser_that_has_begun(shards: Manifest, tmp_path: Path) -> None:
    """Which is not finished, and stays as it is."""
    plain = options(write_small(tmp_path), shards, tmp_path / "out")
    runs = {run.name: run for run in estimate.driver.prepare(replace(plain, tables=(), figures=(5,)))[0]}
    parser = runs["parser"]
    train(parser.config, parser.folder, World())
    (parser.folder / "requeue").write_text("")
    before = {p: p.stat().st_mtime_ns for p in parser.folder.rglob("*")}
    (tmp_path / "timed").mkdir()
    rate = estimate._timed(runs["GFC"], str(shards.folder), 1, tmp_path / "timed")
    assert rate is not None and rate.images_per_s > 0
    assert before == {p: p.stat().st_mtime_ns for p in parser.folder.rglob("*")} and not runs["GFC"].folder.exists()
