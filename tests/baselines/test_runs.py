"""Runs of the peers through the same doors as the paper's models: train, continue, export, evaluate, complete, ranks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from collagan_dist.config.load import load_config, model_label, to_yaml
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.errors import CheckpointError, ConfigError, Interrupted
from collagan_dist.inference.complete import complete
from collagan_dist.inference.export import export
from collagan_dist.inference.score import ScoreRequest, score
from collagan_dist.report.page import write_report
from collagan_dist.runs.model_folder import read_inference_weights
from collagan_dist.training.loop import StartOptions, train
from collagan_dist.types import World
from tests.baselines.peers import PEERS, WORLD, StopAfter, peer, smooth, start, train_parser
from tests.conftest import collagan
from tests.training.small import equal, weights


@pytest.mark.parametrize("name", PEERS)
def test_interrupted_equals_uninterrupted(shards: Manifest, parser: Path, tmp_path: Path, name: str) -> None:
    """Bit for bit, stopped in each of GFC's stages."""
    config = peer(shards, name, parser, schedule__steps=8)
    train(config, tmp_path / "whole", WORLD)
    for steps in (2, 3):
        with pytest.raises(Interrupted):
            train(config, tmp_path / "parts", WORLD, StartOptions(StopAfter(steps)))
    assert train(config, tmp_path / "parts", WORLD) == 8
    assert equal(weights(tmp_path / "whole", 8), weights(tmp_path / "parts", 8))
    assert len(list((tmp_path / "parts/checkpoints").iterdir())) == 3


def test_the_parser_is_the_checkpoints(shards: Manifest, parser: Path, tmp_path: Path) -> None:
    """It never changes. Another one is refused, or with --allow-config-change not looked at: the checkpoint's stays."""
    before = read_inference_weights(parser).generator
    config = peer(shards, "gfc", parser, schedule__steps=8)
    with pytest.raises(Interrupted):
        train(config, tmp_path / "run", WORLD, StartOptions(StopAfter(6)))
    other = tmp_path / "other"
    train(load_config(str(parser / "config.yaml"), sets=["seed=9"], shards=str(shards.folder)), other, WORLD)
    model = config.model.model_copy(update={"gfc": config.model.gfc.model_copy(update={"parser": str(other)})})
    changed = config.model_copy(update={"model": model})
    with pytest.raises(CheckpointError, match=r"model\.gfc\.parser: [0-9a-f]{64} -> [0-9a-f]{64}"):
        train(changed, tmp_path / "run", WORLD)
    train(changed, tmp_path / "run", WORLD, StartOptions(allow_config_change=True))
    kept = {n: t for n, t in weights(tmp_path / "run", 8).items() if n.startswith("discriminators/parser.")}
    assert kept and equal(kept, {f"discriminators/parser.network.{n}": t for n, t in before.items()})
    assert not any("optimizer/discriminators/parser" in n for n in weights(tmp_path / "run", 8))


def test_a_parser_may_move(shards: Manifest, parser: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(parser, tmp_path / "moved"))
    with pytest.raises(Interrupted):
        train(peer(shards, "gfc", parser, schedule__steps=4), tmp_path / "run", WORLD, StartOptions(StopAfter(2)))
    assert train(peer(shards, "gfc", moved, schedule__steps=4), tmp_path / "run", WORLD) == 4


def test_an_unfinished_parser_is_refused(shards: Manifest, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(train_parser(shards), tmp_path / "parser", WORLD, StartOptions(StopAfter(1)))
    with pytest.raises(ConfigError, match=r"stopped before its end; finish it first: collagan train"):
        train(peer(shards, "gfc", tmp_path / "parser"), tmp_path / "run", WORLD)


@pytest.mark.parametrize("name", PEERS)
def test_two_ranks_learn_as_one(shards: Manifest, parser: Path, tmp_path: Path, name: str) -> None:
    """Losses of 2 ranks and of 1 with the same global batch agree up to batch statistics per rank; GFC in all its stages."""
    path = tmp_path / "small.yaml"
    config = peer(shards, name, parser, schedule__batch=12, schedule__steps=4, log__every=1)
    path.write_text(to_yaml(config))
    train(config, tmp_path / "1", WORLD)
    collagan("train", path, "--run", tmp_path / "2", ranks=2)
    lines = []
    for ranks in "12":
        text = (tmp_path / ranks / "metrics.jsonl").read_text()
        lines.append([line for line in map(json.loads, text.splitlines()) if line["kind"] == "train"])
    for one, two in zip(*lines, strict=True):
        assert one.keys() == two.keys()
        for key in (k for k in one if k.startswith("loss/")):
            tolerance = 1e-3 if name == "gfc" else 0.1  # GFC has no batch statistics: the gradients are equal
            assert two[key] == pytest.approx(one[key], rel=tolerance), f"{key} at step {one['step']}"


def test_sii_from_training_to_completion(shards: Manifest, drawn: Path, tmp_path: Path) -> None:
    """The command line, with a model that needs its discriminator at test."""
    path, run, out = tmp_path / "small.yaml", tmp_path / "run", tmp_path / "exported"
    path.write_text(to_yaml(peer(shards, "sii", evaluate__every=7, evaluate__baselines=2)))
    collagan("train", path, "--run", run)
    score(run, WORLD)
    collagan("export", run, "--out", out)
    collagan("evaluate", out, "--data", shards.folder)
    mine, exported = (json.loads((f / "evaluation/test-block.json").read_text()) for f in (run, out))
    assert mine == exported and mine["hole"] == "block" and mine["psnr_hole"] > 0
    assert json.loads((run / "metrics.json").read_text())["psnr"] == mine["psnr"]
    larger = score(run, WORLD, sets=["evaluate.size=64", "evaluate.baselines=0"])[0][
        0
    ]  # searched at 32, compared at 64
    assert larger["psnr_hole"] == pytest.approx(mine["psnr_hole"], abs=3) and larger["settings"]["size"] == 64
    photo = drawn / "Img/img_celeba/000001.jpg"
    collagan("complete", out, photo, "--out", tmp_path / "done-exported")
    complete(run, photo, tmp_path / "done-run", "block")
    pictures = [(tmp_path / f"done-{m.name}/000001.completed.png").read_bytes() for m in (run, out)]
    assert pictures[0] == pictures[1]
    (discriminators,) = out.glob("discriminators.safetensors")
    content = bytearray(discriminators.read_bytes())
    content[-3] ^= 1
    discriminators.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"discriminators.safetensors: is damaged or edited"):
        complete(out, photo, tmp_path / "damaged", "block")
    with pytest.raises(ConfigError, match=r"--onnx: .* is SII, which searches at test"):
        export(run, tmp_path / "onnx", onnx=True)


@pytest.mark.parametrize("name", ["ce", "gfc"])
def test_completion_without_its_discriminators(shards: Manifest, parser: Path, tmp_path: Path, name: str) -> None:
    """Exported without them; GFC's parser may be gone, and holes of any kind are completed."""
    gone = tmp_path / "parser"
    gone.symlink_to(parser)
    run = tmp_path / "run"
    train(peer(shards, name, gone, evaluate__baselines=2), run, World())
    gone.unlink()
    export(run, tmp_path / "out")
    assert not list((tmp_path / "out").glob("disc*"))
    ((mine, _),) = score(tmp_path / "out", World(), ScoreRequest(holes=("noise",)), str(shards.folder))
    assert mine["psnr_hole"] > 0 and mine == score(run, World(), ScoreRequest(holes=("noise",)))[0][0]
    assert model_label(load_config(str(run / "config.yaml")).model) == name.upper()
    assert f"{name.upper()}" in write_report([run]).read_text()


@pytest.mark.parametrize("name", PEERS)
def test_bf16_agrees_with_fp32(shards: Manifest, parser: Path, name: str) -> None:
    found = []
    for precision, layout in (("fp32", False), ("bf16", True)):
        step, _ = start(peer(shards, name, parser, runtime__precision=precision, runtime__channels_last=layout))
        found.append(step(smooth(8, 32), 19).values)
    for key, value in found[0].items():
        if key.startswith("loss/"):
            assert found[1][key].dtype == torch.float32
            assert found[1][key].item() == pytest.approx(value.item(), rel=0.05, abs=2e-3), key


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_over_any_configuration(name: str) -> None:
    """Its own losses, rates and kind of holes; the length, the batch and the widths of the configuration."""
    own, over = load_config(name), load_config("demo", name.upper())
    assert over.model.widths.generator == 24 and over.schedule == load_config("demo").schedule
    assert over.loss == own.loss and over.optim == own.optim and over.hole == own.hole
    assert over.evaluate.search == own.evaluate.search and over.model.gfc == own.model.gfc
    assert load_config("stable", name.upper()).data.image_size == (64 if name == "sii" else 128)
    with pytest.raises(ConfigError, match="has the one task inpainting"):
        load_config(name, sets=["model.tasks=[segmentation]", "loss.weights={}"])
    with pytest.raises(ConfigError, match=f"{name} starts as its code does; set it to zero"):
        load_config(name, sets=["model.output_bias=mean"])
