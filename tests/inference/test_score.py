"""`collagan evaluate`: its files, what may be set, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from collagan_dist.commands.main import main
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.errors import ConfigError
from collagan_dist.inference.score import ScoreRequest, score
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.training.small import small


def test_holes_and_blends_in_one_call(trained_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(trained_run), "--hole", "O1,O6,block", "--blend", "both"])
    assert not stop.value.code
    names = ["test-O1", "test-O1-blended", "test-O6", "test-O6-blended", "test-block", "test-block-blended"]
    assert [line for line in capsys.readouterr().out.splitlines() if line.endswith(".json")] == [
        str(trained_run / "evaluation" / f"{name}.json") for name in names
    ]
    for name in names:
        metrics = json.loads((trained_run / "evaluation" / f"{name}.json").read_bytes())
        assert (metrics["split"], metrics["hole"]) == ("test", name.split("-")[1])
        assert metrics["blend"] == ("poisson" if name.endswith("blended") else "none") and metrics["step"] == 7
        assert metrics["settings"]["positions"] == "landmarks"
        assert (trained_run / "evaluation" / f"{name}.png").is_file()
        assert ("hole_size" in metrics) == (metrics["hole"] != "block")
        if metrics["hole"] == "O6":  # wider than high, and about a tenth of 32x32 pixels
            assert metrics["hole_size"][1] > metrics["hole_size"][0] > 4
    assert (trained_run / "metrics.json").read_bytes() == (trained_run / "evaluation" / "test-block.json").read_bytes()


def test_fixed_positions_have_a_file_of_their_own(trained_run: Path) -> None:
    results = score(trained_run, World(), ScoreRequest(holes=["O2", "block"]), sets=["evaluate.positions=fixed"])
    assert [path.name for _, path in results] == ["test-O2-fixed.json", "test-block.json"]


@pytest.mark.parametrize("item", ["model.noise=0", "data.image_size=64", "evaluate.redout=argmax"])
def test_what_was_learned_cannot_be_set(trained_run: Path, item: str) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\."):
        score(trained_run, World(), sets=[item])


def test_another_size_is_refused(trained_run: Path) -> None:
    with pytest.raises(ConfigError, match="pictures of 32 pixels only"):
        score(trained_run, World(), sets=["evaluate.size=64"])


def test_nothing_to_blend(shards: Manifest, tmp_path: Path) -> None:
    config = small(shards.folder, schedule__steps=1, model__tasks=["landmarks"])
    train(config, tmp_path / "run", World())
    with pytest.raises(ConfigError, match="no completions to blend"):
        score(tmp_path / "run", World(), ScoreRequest(blends=["poisson"]))


@pytest.mark.parametrize(("box", "message"), [([100, 0, 40, 10], "reaches beyond"), ([0, 0, 0, 10], "fixed.O1.2")])
def test_fixed_boxes_lie_in_the_picture(trained_run: Path, box: list[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        score(trained_run, World(), sets=[f"evaluate.fixed.O1={box}"])


def test_unknown_holes_are_refused(trained_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(trained_run), "--hole", "O7"])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "O7" in error and "O6" in error
