import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from collagan_dist.config.tree import Search
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.distributed.engine import Engine
from collagan_dist.distributed.group import Group
from collagan_dist.errors import CheckpointError, ConfigError
from collagan_dist.inference.complete import complete
from collagan_dist.inference.export import export
from collagan_dist.inference.score import score
from collagan_dist.models import sii
from collagan_dist.models.networks import Networks
from collagan_dist.models.registry import build_predictor
from collagan_dist.tasks import build_tasks
from collagan_dist.training.loop import train
from collagan_dist.types import Batch, World
from tests.models.network_sizes import widths
from tests.models.peers import CPU, WORLD, peer, smooth, start, state
from tests.training.small import equal


@pytest.fixture(scope="module")
def trained(shards: Manifest) -> Networks:
    """After some steps, and with an output layer that makes colours of what the generator has learned by then."""
    step, networks = start(peer(shards, "sii"))
    for number in range(20):
        step(smooth(8, 32, seed=number), number)
    with torch.no_grad():
        networks.eval_generator.layers[-1].weight.mul_(30)
    return networks


def predict(shards: Manifest, networks: Networks, batch: Batch, **changes: object) -> torch.Tensor:
    config = peer(shards, "sii", **changes)
    return build_predictor(config, Engine(config.runtime, Group(World(), CPU)), build_tasks(config), networks)(batch)[
        "inpainting"
    ]


def rows(batch: Batch, which: slice) -> Batch:
    tensors = (batch.image_B3HW[which], batch.input_B3HW[which], batch.hole_B1HW[which])
    return Batch(*tensors, None, None, batch.ids_B[which], batch.epoch_B[which], batch.keys_B2[which])


def test_dcgan_is_that_of_bamos():
    generator, discriminator = sii.SIIGenerator(100, 64, 64), sii.SIIDiscriminator(64, 64)
    assert generator.project.out_features == 8192 and widths(generator, 2) == [256, 128, 64, 3]
    assert widths(discriminator, 2) == [64, 128, 256, 512] and discriminator.output.in_features == 8192
    assert {m.kernel_size for m in discriminator.modules() if isinstance(m, nn.Conv2d)} == {(5, 5)}


def test_z_is_uniform_and_a_function_of_the_key():
    keys = torch.randint(-(2**31), 2**31 - 1, (500, 2)) | 1
    z = sii.noise(keys.int(), 100)
    assert torch.equal(z[7:8], sii.noise(keys[7:8].int(), 100)) and z.min() >= -1 and z.max() < 1
    assert abs(z.mean()) < 0.01 and abs(z.var() - 1 / 3) < 0.01
    assert abs(torch.corrcoef(z[:2])[0, 1]) < 0.35


def test_sii_learns_from_whole_pictures_alone(shards):
    """What is filled in and where holes are changes nothing."""
    found = []
    for kind in ("none", "block"):
        step, networks = start(peer(shards, "sii"))
        step(smooth(4, 32, kind), 0)
        found.append(state(networks.generator))
    assert equal(*found)


def test_it_reduces_each_picture_s_loss(trained):
    batch, generator, judges = smooth(4, 32), trained.eval_generator.eval(), trained.discriminators.eval()
    weights = sii.neighbour_weights(batch.hole_B1HW, 7)
    begin = sii.noise(batch.keys_B2, 8)
    end = sii.search(generator, judges, batch.input_B3HW, batch.hole_B1HW, begin, Search(steps=50, lr=0.05))
    before, after = (sii.losses(generator, judges, batch.input_B3HW, weights, z, 0.1) for z in (begin, end))
    assert (after < before).all() and end.abs().max() <= 1


def test_it_repeats_and_hangs_on_no_batch_mate(shards, trained):
    batch = smooth(4, 32)
    whole = predict(shards, trained, batch)
    assert torch.equal(whole, predict(shards, trained, batch)) and whole.shape == (4, 3, 32, 32)
    single = torch.cat([predict(shards, trained, rows(batch, slice(i, i + 1))) for i in range(4)])
    assert torch.allclose(whole, single, atol=1e-4)
    assert (whole[0] - whole[1]).abs().mean() > 0.01


def test_it_does_not_look_into_the_hole(shards, trained):
    batch = smooth(2, 32)
    other = rows(batch, slice(None))
    other.input_B3HW = torch.where(batch.hole_B1HW, torch.ones(()), batch.input_B3HW)
    other.image_B3HW = torch.zeros_like(batch.image_B3HW)
    assert torch.equal(predict(shards, trained, batch), predict(shards, trained, other))


def test_it_leaves_the_networks_as_they_were(shards, trained):
    trained.generator.train(), trained.discriminators.train()
    before = state(trained.eval_generator), state(trained.discriminators)
    modes = trained.eval_generator.training, trained.discriminators.training
    with torch.inference_mode():
        predict(shards, trained, smooth(2, 32))
    assert equal(before[0], trained.eval_generator.state_dict()) and equal(
        before[1], trained.discriminators.state_dict()
    )
    assert (trained.eval_generator.training, trained.discriminators.training) == modes
    assert all(p.requires_grad for p in trained.discriminators.parameters())


def test_pictures_of_another_size(shards, trained):
    """At 64 pixels with a model of 32: every pixel doubled asks for the same z."""
    batch = smooth(2, 32)
    double = copy.copy(batch)
    for field in ("image_B3HW", "input_B3HW", "hole_B1HW"):
        setattr(double, field, getattr(batch, field).repeat_interleave(2, 2).repeat_interleave(2, 3))
    small, large = predict(shards, trained, batch), predict(shards, trained, double)
    assert large.shape == (2, 3, 64, 64)
    assert torch.allclose(F.avg_pool2d(large, 2), small, atol=0.1) and abs(large.mean() - small.mean()) < 1e-3


def test_weights_are_shares_of_missing_neighbours():
    hole = torch.zeros(1, 1, 9, 9, dtype=torch.bool)
    hole[..., 3:6, 3:6] = True
    weights = sii.neighbour_weights(hole, 3)[0, 0]
    by_hand = torch.zeros(9, 9)
    for y, x in np.ndindex(9, 9):
        window = hole[0, 0, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].float()
        by_hand[y, x] = 0.0 if hole[0, 0, y, x] else window.mean()
    assert torch.allclose(weights, by_hand) and weights[2, 2] == pytest.approx(1 / 9)
    assert sii.neighbour_weights(hole, 4).shape == hole.shape


def test_a_smaller_picture_is_made_of_seen_pixels():
    picture = torch.arange(16.0).view(1, 1, 4, 4).repeat(1, 3, 1, 1)
    hole = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    hole[..., :2, :2] = True
    hole[..., 3, 3] = True
    seen, missing = sii.resize_visible(picture, hole, 2)
    assert missing[0, 0].tolist() == [[True, False], [False, False]]
    assert seen[0, 0, 0, 1] == np.mean([2, 3, 6, 7]) and seen[0, 0, 1, 1] == pytest.approx(np.mean([10, 11, 14]))


def test_sii_from_training_to_completion(shards, drawn, tmp_path):
    """A model that needs its discriminator at test."""
    run, out, photo = tmp_path / "run", tmp_path / "exported", drawn / "Img/img_celeba/000001.jpg"
    train(peer(shards, "sii", schedule__steps=2, evaluate__baselines=0, evaluate__samples=2), run, WORLD)
    export(run, out)
    ((mine, _),), ((exported, _),) = score(run, WORLD), score(out, WORLD, shards=str(shards.folder))
    assert mine == exported and mine["hole"] == "block" and mine["psnr_hole"] > 0
    ((larger, _),) = score(run, WORLD, sets=["evaluate.size=64"])  # searched at 32, compared at 64
    assert larger["psnr_hole"] == pytest.approx(mine["psnr_hole"], abs=3) and larger["settings"]["size"] == 64
    for model in (run, out):
        complete(model, photo, tmp_path / f"done-{model.name}", "block")
    first, second = (path.read_bytes() for path in sorted(tmp_path.glob("done-*/000001.completed.png")))
    assert first == second
    discriminators = out / "discriminators.safetensors"
    content = bytearray(discriminators.read_bytes())
    content[-3] ^= 1
    discriminators.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"discriminators.safetensors is damaged or edited"):
        complete(out, photo, tmp_path / "damaged", "block")
    with pytest.raises(ConfigError, match=r"--onnx: .* is SII, which searches at test"):
        export(run, tmp_path / "onnx", onnx=True)
