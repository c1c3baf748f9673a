"""How the peers learn: each phase moves its own side, GFC's stages switch on what they should, and the numbers are golden."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.distributed.engine import Update
from collagan_dist.errors import ConfigError
from collagan_dist.models import gfc
from collagan_dist.training.loop import train
from tests.baselines.peers import PEERS, WORLD, peer, same, smooth, start, state, train_parser


class Watched:
    """Which side every update moved."""

    def __init__(self, step: Any, networks: Any) -> None:
        self.networks, self.moved = networks, []
        updates = step.updates

        def watching(*args: Any) -> Iterator[Update]:
            before = self.learned()
            for update in updates(*args):
                after = self.learned()
                self.moved.append("".join(side for side in "GD" if not same(before[side], after[side])))
                yield update
                before = after

        step.updates = watching

    def learned(self) -> dict[str, dict[str, torch.Tensor]]:
        sides = {"G": self.networks.generator, "D": self.networks.discriminators}
        return {side: {n: p.detach().clone() for n, p in module.named_parameters()} for side, module in sides.items()}


@pytest.mark.parametrize(("name", "expected"), [("ce", ["D", "G"]), ("sii", ["D", "G", "G"]), ("gfc", ["D", "G"])])
def test_each_update_moves_one_side(shards: Manifest, parser: Path, name: str, expected: list[str]) -> None:
    step, networks = start(peer(shards, name, parser))
    watched = Watched(step, networks)
    step(smooth(4, 32), 19)
    assert watched.moved == expected
    assert all(p.requires_grad for p in networks.generator.parameters())
    learns = {n for n, p in networks.discriminators.named_parameters() if p.requires_grad}
    assert learns == {n for n, _ in networks.discriminators.named_parameters() if not n.startswith("parser.")}


def test_ce_is_l2_over_the_whole_picture(shards: Manifest) -> None:
    step, networks = start(peer(shards, "ce"))
    batch = smooth(4, 32)
    output = networks.generator(batch.input_B3HW, batch.keys_B2)
    values = step(batch, 0).values
    assert values["loss/inpainting/rec"] == pytest.approx(F.mse_loss(output, batch.image_B3HW).item(), rel=1e-5)
    total = 0.999 * values["loss/inpainting/rec"] + 0.001 * values["loss/inpainting/adv"]
    assert values["loss/total"].item() == pytest.approx(total.item(), rel=1e-5)


def test_ce_needs_two_samples_a_rank(shards: Manifest) -> None:
    step, _ = start(peer(shards, "ce"))
    with pytest.raises(ConfigError, match=r"schedule.batch: .* give every rank at least 2"):
        step(smooth(1, 32), 0)


def test_sii_learns_from_whole_pictures_alone(shards: Manifest) -> None:
    """What is filled in and where holes are changes nothing."""
    found = []
    for kind in ("none", "block"):
        step, networks = start(peer(shards, "sii"))
        step(smooth(4, 32, kind), 0)
        found.append(state(networks.generator))
    assert same(*found)


def test_gfc_stages(shards: Manifest, parser: Path) -> None:
    """Of 20 steps: reconstruction up to 10, the local discriminator from there, the global one and the parser from 15."""
    step, networks = start(peer(shards, "gfc", parser))
    judges = networks.discriminators
    begins = {name: state(getattr(judges, name)) for name in ("local", "whole", "parser")}
    seen = [set(step(smooth(4, 32), number).values) for number in (0, 9)]
    assert all(same(begin, getattr(judges, name).state_dict()) for name, begin in begins.items())
    rec, local, whole = {"rec"}, {"adv_local", "disc_local"}, {"adv", "disc", "parsing"}
    seen.append(set(step(smooth(4, 32), 10).values))
    assert not same(begins["local"], judges.local.state_dict()) and same(begins["whole"], judges.whole.state_dict())
    assert not networks.discriminator_learners["whole"].optimizer_state()
    seen.append(set(step(smooth(4, 32), 15).values))
    assert not same(begins["whole"], judges.whole.state_dict()) and same(begins["parser"], judges.parser.state_dict())
    losses = [{n.removeprefix("loss/inpainting/") for n in names if n.startswith("loss/inp")} for names in seen]
    assert losses == [rec, rec, rec | local, rec | local | whole]


def test_gfc_weights_are_those_of_its_gradients(shards: Manifest, parser: Path) -> None:
    """At 128 pixels: 1 x sum of L1, 300 x each adversarial term and 0.05 x sum of the cross-entropy, up to one factor."""
    config = peer(shards, "gfc", parser)
    elements = 3 * 128**2
    weights = config.loss.weights["inpainting"]
    assert weights.adv / weights.rec == pytest.approx(300 / elements, rel=1e-3)
    assert config.model.gfc.parsing / weights.rec == pytest.approx(0.05 * 128**2 / elements, rel=5e-3)
    step, _ = start(config)
    values = {n.removeprefix("loss/inpainting/"): v.item() for n, v in step(smooth(4, 32), 19).values.items()}
    total = values["rec"] + 0.0061 * (values["adv"] + values["adv_local"]) + 0.0167 * values["parsing"]
    assert values["loss/total"] == pytest.approx(total, rel=1e-5)


def test_gfc_weighted_losses_add_up(shards: Manifest, parser: Path) -> None:
    step, _ = start(peer(shards, "gfc", parser))
    values, lambdas = step(smooth(4, 32), 19).values, step.loss_weights()
    total = sum(lambdas[name] * value for name, value in values.items() if name in lambdas)
    assert "loss/inpainting/parsing" in values and values["loss/total"].item() == pytest.approx(total.item(), rel=1e-5)


def test_gfc_judges_see_the_hole_only_through_the_composite(shards: Manifest, parser: Path) -> None:
    """Without the reconstruction no gradient reaches G's output outside the hole."""
    step, networks = start(peer(shards, "gfc", parser, loss={"weights": {"inpainting": {"adv": 1, "rec": 0}}}))
    batch, kept = smooth(4, 32), []

    def keep(_: object, __: object, output: torch.Tensor) -> None:
        output.register_hook(kept.append)

    networks.generator.register_forward_hook(keep)
    step(batch, 19)
    (gradient,) = kept
    assert not gradient.masked_fill(batch.hole_B1HW, 0).any() and gradient.masked_fill(~batch.hole_B1HW, 0).any()


def test_block_of() -> None:
    batch = smooth(6, 32)
    blocks = gfc.block_of(batch.image_B3HW, batch.hole_B1HW)
    for block, image, hole in zip(blocks, batch.image_B3HW, batch.hole_B1HW, strict=True):
        assert torch.equal(block.flatten(), image[hole.expand_as(image)])
    assert torch.equal(gfc.block_of(batch.hole_B1HW.float(), batch.hole_B1HW), torch.ones(6, 1, 16, 16))


def test_parser_gives_the_probabilities_of_its_classes(shards: Manifest, parser: Path) -> None:
    network = gfc.load_parser(str(parser))
    picture = smooth(2, 32).image_B3HW.requires_grad_(True)
    shares = gfc.log_probabilities(network(picture)).exp()
    assert shares.shape == (2, 11, 32, 32) and torch.allclose(shares.sum(1), torch.ones(2, 32, 32), atol=1e-4)
    scores = network.network(picture, None)
    assert torch.equal(shares.argmax(1), scores.argmax(1)) and not network.train().network.training
    shares.square().mean().backward()
    assert picture.grad is not None and picture.grad.any()
    assert all(p.grad is None for p in network.parameters())


def test_parser_of_another_size(shards: Manifest, tmp_path: Path) -> None:
    train(train_parser(shards, size=64), tmp_path / "parser", WORLD)
    step, _ = start(peer(shards, "gfc", tmp_path / "parser"))
    assert step(smooth(4, 32), 19).values["loss/inpainting/parsing"] > 0
    assert gfc.load_parser(str(tmp_path / "parser"))(smooth(4, 32).image_B3HW).shape[-1] == 64


def test_what_gfc_needs_is_said_before_anything_starts(shards: Manifest, parser: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match=r"model.gfc.parser: .*collagan train parser .*model.gfc.parsing=0"):
        train(peer(shards, "gfc"), run, WORLD)
    with pytest.raises(ConfigError, match=r"hole.kind: GFC's local discriminator needs a rectangle, not noise"):
        train(peer(shards, "gfc", parser, hole={"kind": "noise"}), run, WORLD)
    assert not run.exists()
    train(peer(shards, "ce", schedule__steps=1), tmp_path / "ce", WORLD)
    with pytest.raises(ConfigError, match=r"is CE, which does not segment; train one that does"):
        train(peer(shards, "gfc", tmp_path / "ce"), run, WORLD)
    config = peer(shards, "gfc")
    model = config.model.model_copy(update={"gfc": config.model.gfc.model_copy(update={"parsing": 0.0})})
    step, _ = start(config.model_copy(update={"model": model}))
    assert "loss/inpainting/parsing" not in step(smooth(4, 32), 19).values


# Losses of the last of 20 steps, with networks in float64: rounding of another machine must not grow into a difference.
# A change of these numbers is a change of what is learned: say in the commit why one is meant.
GOLDEN = {
    "ce": {"rec": 0.1829637, "adv": 0.8381967, "disc": 0.6436426},
    "sii": {"adv": 0.4339172, "disc": 0.8214791},
    "gfc": {
        "rec": 0.3537812, "adv_local": 0.69416, "disc_local": 0.6923915, "adv": 0.6931648, "disc": 0.6931463, "parsing": 2.3945723,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PEERS)
def test_golden_losses(shards: Manifest, parser: Path, name: str) -> None:
    step, networks = start(peer(shards, name, parser))
    for network in (networks.generator, networks.discriminators, networks.ema):
        for layer in network.double().modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                layer.register_forward_pre_hook(lambda _, args: (args[0].double(),))
            elif isinstance(layer, nn.BatchNorm2d):
                layer.reset_running_stats()  # the parser's, which are of decoded pictures
    for number in range(20):
        values = step(smooth(8, 32, seed=number), number).values
    found = {key.removeprefix("loss/inpainting/"): float(v) for key, v in values.items() if key.startswith("loss/inp")}
    assert found == pytest.approx(GOLDEN[name], rel=1e-3)
