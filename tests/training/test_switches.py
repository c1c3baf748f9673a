"""Every switch changes what it should and nothing else: the first step's values with it, beside those without it."""

from typing import Any

import numpy as np
import pytest
import torch

from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.inference.evaluate import evaluate
from collagan_dist.models.networks import Networks
from collagan_dist.models.registry import build_networks, build_predictor, build_step
from collagan_dist.setup import Setup
from collagan_dist.types import Batch
from tests.training.one_rank import setup

PLAN = (np.arange(4), np.zeros(4, np.int64))
TASKS = ("inpainting", "segmentation", "landmarks")


def changes(key: str, value: Any) -> dict[str, Any]:
    """A dotted key as the argument of `setup`."""
    section, _, rest = key.partition(".")
    first, _, inner = rest.partition(".")
    return {f"{section}__{first}": {inner: value} if inner else value} if rest else {section: value}


FirstStep = tuple[dict[str, float], Batch]


def first_step(manifest: Manifest, **settings: Any) -> FirstStep:
    part = setup(manifest, **settings)
    networks = build_networks(part.config, part.engine, part.tasks)
    batch = next(part.loader("train", part.view(training=True), 4).batches(iter([PLAN])))
    step = build_step(part.config, part.engine, part.tasks, networks, 10)
    return {name: float(value) for name, value in step(batch, 0).values.items()}, batch


@pytest.fixture(scope="module")
def plain_step(shards: Manifest) -> FirstStep:
    return first_step(shards)


def learn(part: Setup, networks: Networks, steps: int) -> None:
    """So that the running statistics are of something."""
    step = build_step(part.config, part.engine, part.tasks, networks, steps)
    loader = part.loader("train", part.view(training=True), 4)
    for number, batch in enumerate(loader.batches(iter([PLAN] * steps))):
        step(batch, number)


def differing(one: dict[str, float], other: dict[str, float]) -> set[str]:
    return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}


def keys(*patterns: str) -> set[str]:
    """`*` stands for every task."""
    return {p.replace("*", task) for p in patterns for task in TASKS}


G = {"gradient/generator", "loss/total"}
D = {"gradient/discriminators"}
EVERYTHING_SHOWN = keys("loss/*/rec", "loss/*/adv", "loss/*/disc") | G | D

# Switch, value: the values of the first step that it changes. What follows from the discriminators' own step is among them.
LEARNING: list[tuple[str, Any, set[str]]] = [
    ("loss.adv", "minmax", keys("loss/*/adv") | G),
    ("loss.adv", "printed", keys("loss/*/adv") | {"loss/total"}),  # the same gradient: it is ns plus a constant
    ("loss.adv_weighs", "both", keys("loss/*/disc", "loss/*/adv") | G | D),
    ("loss.inpainting_over", "hole", {"loss/inpainting/rec"} | G),
    ("loss.l2", "sum_channels", {"loss/segmentation/rec", "loss/landmarks/rec"} | G),
    ("loss.l2", "norm", {"loss/segmentation/rec", "loss/landmarks/rec"} | G),
    ("loss.l1", "sum_channels", {"loss/inpainting/rec"} | G),
    ("loss.weights", {"landmarks": {"adv": 0.1, "rec": 10.0}}, G),
    ("model.noise", 0.0, EVERYTHING_SHOWN),
    ("model.mask_channel", True, EVERYTHING_SHOWN),
    ("model.normalize", "each", EVERYTHING_SHOWN),
    ("model.patch", 70, keys("loss/*/disc", "loss/*/adv") | G | D),
    ("model.widths", {"generator": 4, "discriminator": 6}, keys("loss/*/disc", "loss/*/adv") | G | D),
    ("model.concentrated", False, {"loss/inpainting/rec", "loss/inpainting/adv", "loss/inpainting/disc"} | G | D),
    ("model.heatmap_sigma", 5.0, {"loss/landmarks/rec", "loss/landmarks/adv", "loss/landmarks/disc"} | G | D),
    ("hole.fill", "zero", EVERYTHING_SHOWN),
    ("hole.fill", "mean", EVERYTHING_SHOWN),
    ("hole.fill", "smooth", EVERYTHING_SHOWN),
    ("hole.fill", "noise", set()),  # what the paper fills a block with
    ("schedule.adv_from", 1, keys("loss/*/disc", "loss/*/adv", "accuracy/*") | G | D),
    ("optim.ema", 0.5, set()),
    ("checkpoint.every", 7, set()),
    ("evaluate.readout", "argmax", set()),
    ("evaluate.noise", True, set()),
    ("evaluate.batch_norm", "batch", set()),
    ("evaluate.positions", "fixed", set())
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "expected"), LEARNING)
def test_what_is_learned(shards, plain_step, key, value, expected):
    plain, batch = plain_step
    switched, other = first_step(shards, **changes(key, value))
    found = differing(plain, switched)
    # Shares of patches are coarse: they may stay where the logits move.
    coarse = keys("accuracy/*")
    assert found - coarse == expected - coarse
    assert found & coarse <= expected | (coarse if expected & keys("loss/*/disc") else set())
    for field in ("image_B3HW", "hole_B1HW", "label_BHW", "points_BK2", "keys_B2"):
        assert torch.equal(getattr(batch, field), getattr(other, field)), field
    outside = ~batch.hole_B1HW.expand_as(batch.input_B3HW)
    assert torch.equal(batch.input_B3HW[outside], other.input_B3HW[outside])


@pytest.mark.parametrize(
    ("augment", "same"),
    [({"flip": 0.0}, False), ({"shift": 0.0}, False), ({"rotate": 0.0}, False), ({"scale": 0.0}, False), ({}, True)],
)
def test_augmentation_moves_pictures_and_annotations_together(shards, plain_step, augment, same):
    (_, plain), (_, other) = plain_step, first_step(shards, data__augment=augment)
    assert torch.equal(plain.image_B3HW, other.image_B3HW) is same
    assert torch.equal(plain.points_BK2, other.points_BK2) is same
    assert torch.equal(plain.label_BHW, other.label_BHW) is same
    assert torch.equal(plain.hole_B1HW, other.hole_B1HW)


def test_a_larger_face_square_shows_smaller_faces(shards):
    still = {"shift": 0.0}
    points = [first_step(shards, data__face_square=f, data__augment=still)[1].points_BK2 for f in (3.2, 4.0)]
    extents = [(p.amax(1) - p.amin(1)).amax(1) for p in points]
    assert torch.allclose(extents[1] * 4.0 / 3.2, extents[0], rtol=0.02)


# Key of `evaluate`, value: the heads of the metrics that it changes.
LOOKING: list[tuple[str, Any, set[str]]] = [
    ("readout", "argmax", {"landmark_error", "landmark_error_hole", "landmark_error_argmax"}),
    ("ssim", "gaussian", {"ssim", "ssim_hole"}),
    ("noise", True, {"psnr", "psnr_hole", "ssim", "ssim_hole", "dice", "dice_hole", "dice_per_image"}),
    ("batch_norm", "batch", {"psnr", "psnr_hole", "ssim", "ssim_hole", "dice", "dice_hole", "dice_per_image"}),
]


def test_what_is_looked_at(shards):
    part = setup(shards)
    networks = build_networks(part.config, part.engine, part.tasks)
    learn(part, networks, steps=10)
    before = {k: v.clone() for k, v in networks.generator.state_dict().items()}

    def metrics(**settings: Any) -> dict[str, Any]:
        part = setup(shards, evaluate=settings)
        predictor = build_predictor(part.config, part.engine, part.tasks, networks)
        (result,) = evaluate(part, predictor, "test", "block", 0)
        assert all(torch.equal(v, before[k]) for k, v in networks.generator.state_dict().items())
        assert networks.generator.training and all(m.training for m in networks.generator.modules())
        return result.metrics

    plain = metrics()
    for key, value, expected in LOOKING:
        other = metrics(**{key: value})
        found = {k for k in plain.keys() | other.keys() if plain.get(k) != other.get(k)} - {"se"}
        if "psnr" in expected:  # points may stay where they are
            found, expected = ({k for k in keys if not k.startswith("landmark")} for keys in (found, expected))
        assert found == expected, key
