import shutil

import pytest
import torch

from collagan_dist.config.load import load_config
from collagan_dist.errors import CheckpointError, ConfigError, Interrupted
from collagan_dist.models import gfc
from collagan_dist.runs.model_folder import read_inference_parameters
from collagan_dist.training.loop import StartOptions, train
from tests.models.peers import WORLD, StopAfter, peer, smooth, start, state, train_parser
from tests.training.small import equal, weights


def test_gfc_stages(shards, parser):
    """Of 20 steps: reconstruction up to 10, the local discriminator from there, the global one and the parser from 15."""
    step, networks = start(peer(shards, "gfc", parser))
    judges = networks.discriminators
    begins = {name: state(getattr(judges, name)) for name in ("local", "whole", "parser")}
    seen = [set(step(smooth(4, 32), number).values) for number in (0, 9)]
    assert all(equal(begin, getattr(judges, name).state_dict()) for name, begin in begins.items())
    rec, local, whole = {"rec"}, {"adv_local", "disc_local"}, {"adv", "disc", "parsing"}
    seen.append(set(step(smooth(4, 32), 10).values))
    assert not equal(begins["local"], judges.local.state_dict()) and equal(begins["whole"], judges.whole.state_dict())
    assert not networks.discriminator_learners["whole"].optimizer_state()
    seen.append(set(step(smooth(4, 32), 15).values))
    assert not equal(begins["whole"], judges.whole.state_dict()) and equal(begins["parser"], judges.parser.state_dict())
    losses = [{n.removeprefix("loss/inpainting/") for n in names if n.startswith("loss/inp")} for names in seen]
    assert losses == [rec, rec, rec | local, rec | local | whole]


def test_gfc_weights_are_those_of_its_gradients(shards, parser):
    """At 128 pixels: 1 x sum of L1, 300 x each adversarial term and 0.05 x sum of the cross-entropy, up to one factor."""
    config = peer(shards, "gfc", parser)
    elements = 3 * 128**2
    weights = config.loss.weights["inpainting"]
    assert weights.adv / weights.rec == pytest.approx(300 / elements, rel=1e-3)
    assert config.model.gfc.parsing / weights.rec == pytest.approx(0.05 * 128**2 / elements, rel=5e-3)
    step, _ = start(config)
    lambdas = step.loss_weights()
    assert lambdas["loss/inpainting/parsing"] == lambdas["loss/inpainting/adv"] / 0.0061 * 0.0167
    values = {n.removeprefix("loss/inpainting/"): v.item() for n, v in step(smooth(4, 32), 19).values.items()}
    total = values["rec"] + 0.0061 * (values["adv"] + values["adv_local"]) + 0.0167 * values["parsing"]
    assert values["loss/total"] == pytest.approx(total, rel=1e-5)


def test_gfc_judges_see_the_hole_only_through_the_composite(shards, parser):
    """Without the reconstruction no gradient reaches G's output outside the hole."""
    step, networks = start(peer(shards, "gfc", parser, loss={"weights": {"inpainting": {"adv": 1, "rec": 0}}}))
    batch, kept = smooth(4, 32), []

    def keep(_: object, __: object, output: torch.Tensor) -> None:
        output.register_hook(kept.append)

    networks.generator.register_forward_hook(keep)
    step(batch, 19)
    (gradient,) = kept
    assert not gradient.masked_fill(batch.hole_B1HW, 0).any() and gradient.masked_fill(~batch.hole_B1HW, 0).any()


def test_block_of():
    batch = smooth(6, 32)
    blocks = gfc.block_of(batch.image_B3HW, batch.hole_B1HW)
    for block, image, hole in zip(blocks, batch.image_B3HW, batch.hole_B1HW, strict=True):
        assert torch.equal(block.flatten(), image[hole.expand_as(image)])
    assert torch.equal(gfc.block_of(batch.hole_B1HW.float(), batch.hole_B1HW), torch.ones(6, 1, 16, 16))


def test_what_gfc_needs_is_said_before_anything_starts(shards, parser, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match=r"model.gfc.parser: .*collagan train parser .*model.gfc.parsing=0"):
        train(peer(shards, "gfc"), run, WORLD)
    with pytest.raises(ConfigError, match=r"hole.kind: GFC's local discriminator needs a rectangle, not noise"):
        train(peer(shards, "gfc", parser, hole={"kind": "noise"}), run, WORLD)
    assert not run.exists()
    train(peer(shards, "ce", schedule__steps=1), tmp_path / "ce", WORLD)
    with pytest.raises(ConfigError, match=r"is CE, which does not segment; train one that does"):
        train(peer(shards, "gfc", tmp_path / "ce"), run, WORLD)
    with pytest.raises(Interrupted):
        train(train_parser(shards), tmp_path / "parser", WORLD, StartOptions(StopAfter(1)))
    with pytest.raises(ConfigError, match=r"stopped before its end; finish it first: collagan train"):
        train(peer(shards, "gfc", tmp_path / "parser"), run, WORLD)
    step, _ = start(peer(shards, "gfc", model__gfc={"parsing": 0.0}))
    assert "loss/inpainting/parsing" not in step(smooth(4, 32), 19).values


def test_the_parser_is_the_checkpoints(shards, parser, tmp_path):
    """It never changes, and may move. Another one is refused, or with --allow-config-change not looked at: the checkpoint's stays."""
    before = read_inference_parameters(parser).generator
    config = peer(shards, "gfc", parser, schedule__steps=8)
    moved = peer(shards, "gfc", shutil.copytree(parser, tmp_path / "moved"), schedule__steps=8)
    for again in (config, moved):
        with pytest.raises(Interrupted):
            train(again, tmp_path / "run", WORLD, StartOptions(StopAfter(3)))
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
