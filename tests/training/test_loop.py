import json
from typing import Any

import pytest

from collagan_dist.errors import Interrupted
from collagan_dist.runs import checkpoint
from collagan_dist.runs.layout import RunPaths
from collagan_dist.training import loop
from collagan_dist.training.loop import StartOptions, train
from tests.models.peers import PEERS, WORLD, StopAfter, peer
from tests.training.small import equal, small, weights


@pytest.mark.parametrize("name", PEERS)
def test_interrupted_equals_uninterrupted(shards, parser, tmp_path, name):
    """Bit for bit, stopped in each of GFC's stages."""
    config = peer(shards, name, parser, schedule__steps=8)
    train(config, tmp_path / "whole", WORLD)
    for steps in (2, 3):
        with pytest.raises(Interrupted):
            train(config, tmp_path / "parts", WORLD, StartOptions(StopAfter(steps)))
    assert train(config, tmp_path / "parts", WORLD) == 8
    assert equal(weights(tmp_path / "whole", 8), weights(tmp_path / "parts", 8))
    assert len(list((tmp_path / "parts/checkpoints").iterdir())) == 3


def test_evaluations_are_reported_with_their_checkpoints(shards, tmp_path):
    """Once these are complete, also where none is due; the answer ends the start, but not after the last step."""
    config = small(shards.folder, schedule__steps=5, evaluate__every=2, evaluate__samples=4)
    paths, heard = RunPaths(tmp_path / "run"), list[tuple[int, Any]]()

    def report(step: int, metrics: dict[str, Any]) -> bool:
        assert checkpoint.load(paths.checkpoint(step)).state["step"] == step
        heard.append((step, metrics["psnr_hole"]))
        return step == 2

    with pytest.raises(Interrupted, match="stopped at step 4 of 5"):
        train(config, paths.folder, WORLD, StartOptions(report=report))
    assert train(config, paths.folder, WORLD, StartOptions(report=report)) == 5
    lines = map(json.loads, paths.metrics_log.read_text().splitlines())
    assert heard == [(line["step"], line["psnr_hole"]) for line in lines if line["kind"] == "eval"]
    assert [step for step, _ in heard] == [2, 4, 5]


@pytest.mark.parametrize(("precision", "has_bf16", "said"), [("bf16", False, 1), ("bf16", True, 0), ("fp32", False, 0)])
def test_a_processor_on_which_bf16_is_slow_is_said(shards, tmp_path, monkeypatch, capsys, precision, has_bf16, said):
    monkeypatch.setattr(loop, "has_bf16", lambda device: has_bf16)  # one machine has one kind of processor
    train(small(shards.folder, schedule__steps=1, runtime__precision=precision), tmp_path / "run", WORLD)
    assert (
        capsys.readouterr().err.count("warning: this processor has no fast bf16: runtime.precision=fp32 trains ")
        == said
    )
