import json
import re
import shutil

import pytest

from collagan_dist.errors import ConfigError
from collagan_dist.inference.score import ScoreRequest, score
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.commands.conftest import call
from tests.faults.processes import Ranks
from tests.training.small import small


def test_holes_and_blends_in_one_call(trained_run, capsys):
    assert call("evaluate", trained_run, "--hole", "O1,O6,block", "--blend", "both") == 0
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


def test_fixed_positions_have_a_file_of_their_own(trained_run):
    results = score(trained_run, World(), ScoreRequest(holes=["O2", "block"]), sets=["evaluate.positions=fixed"])
    assert [path.name for _, path in results] == ["test-O2-fixed.json", "test-block.json"]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("model.noise=0", r"evaluate\."),
        ("evaluate.redout=argmax", r"evaluate\."),
        ("evaluate.size=64", "pictures of 32 pixels only"),
        ("evaluate.fixed.O1=[100, 0, 40, 10]", "reaches beyond"),
        ("evaluate.fixed.O1=[0, 0, 0, 10]", "fixed.O1.2"),
    ],
)
def test_only_valid_keys_of_evaluate_can_be_set(trained_run, item, message):
    with pytest.raises(ConfigError, match=message):
        score(trained_run, World(), sets=[item])


def test_nothing_to_blend(landmarks_run):
    with pytest.raises(ConfigError, match="no completions to blend"):
        score(landmarks_run, World(), ScoreRequest(blends=["poisson"]))


def test_ranks_that_read_different_checkpoints_score_none(shards, tmp_path):
    """As they may of a URL, or of a run that trains: each looks for the newest by itself."""
    first = tmp_path / "0/run"
    train(small(shards.folder, schedule__steps=2, checkpoint__every=1), first, World())
    second = shutil.copytree(first, tmp_path / "1/run")
    shutil.rmtree(second / "checkpoints/step-00000002")
    command = ["collagan_dist", "evaluate"]
    with Ranks(tmp_path, [*command, first], [*command, second]) as ranks:
        assert ranks.end() == [4, 4], ranks.output()
    said = r"run: ranks do not read the same checkpoint; .* \(rank 0: step 2, sha256 .*; rank 1: step 1, "
    assert re.search(said, ranks.output(0)) and not ranks.output(1)
    assert not list(tmp_path.rglob("test-*.json"))
