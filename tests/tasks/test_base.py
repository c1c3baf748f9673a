from collections.abc import Callable

import numpy as np
import pytest
import torch

from collagan_dist.config.load import validate_config
from collagan_dist.config.tree import Config
from collagan_dist.tasks import build_tasks
from collagan_dist.tasks.inpainting import Inpainting
from collagan_dist.tasks.segmentation import Segmentation
from collagan_dist.types import CLASSES, LANDMARKS
from tests.tasks.batches import batch


def resampled(statistic: Callable[[np.ndarray], dict[str, float]], count: int, rounds: int = 1500) -> dict[str, float]:
    """Standard deviation of a statistic over samples drawn again with replacement."""
    rng = np.random.default_rng(5)
    found = [statistic(rng.integers(0, count, count)) for _ in range(rounds)]
    return {key: float(np.std([f[key] for f in found])) for key in found[0]}


def flat(tree: dict, prefix: str = "") -> dict[str, float]:
    return {
        key: value
        for name, branch in tree.items()
        for key, value in (flat(branch, f"{prefix}{name}/") if isinstance(branch, dict) else {prefix + name: branch}).items()
    }  # fmt: skip


@pytest.mark.parametrize("task", ["inpainting", "segmentation", "landmarks"])
def test_standard_errors_are_those_of_a_bootstrap(task):
    """Over pictures of unequal difficulty, some without a class or without a point in the hole."""
    rng, count = np.random.default_rng(3), 120
    part = build_tasks(Config())[task]
    difficulty = rng.uniform(0.3, 1.7, (count, 1))
    if task == "inpainting":
        rows = {name: 20 + difficulty[:, 0] * rng.normal(0, 2, count) for name in ("psnr", "psnr_hole", "ssim")}
        rows["psnr_hole"][rng.random(count) < 0.3] = np.nan
    elif task == "segmentation":
        true = rng.poisson(40 * difficulty, (count, len(CLASSES))).astype(float)
        true[:, 8] *= rng.random(count) < 0.5
        both = np.floor(true * np.clip(1 - difficulty * rng.uniform(0.1, 0.5, true.shape), 0, 1))
        found = both + rng.poisson(4, true.shape) * (true > 0)
        rows = {name: np.stack([both, found, true], axis=-1) for name in ("dice", "dice_hole")}
    else:
        distance = difficulty * rng.gamma(2, 1, (count, len(LANDMARKS))) + 3 * np.arange(len(LANDMARKS))
        hidden = np.where(rng.random(distance.shape) < [0.2, 0.3, 0.5, 0.6, 0.9], distance, np.nan)
        rows = {"landmark_error": distance, "landmark_error_hole": hidden}
    values, errors = part.summarize(rows)
    expected = resampled(lambda ids: flat(part.summarize({n: v[ids] for n, v in rows.items()})[0]), count, 800)
    stated = flat(errors)
    assert stated.keys() == expected.keys() == flat(values).keys()
    for key, value in stated.items():
        assert value == pytest.approx(expected[key], rel=0.15), key


def test_errors_of_too_few_samples_are_unknown_not_zero():
    b = batch(count=1)
    for task in build_tasks(Config()).values():
        _, errors = task.summarize(task.measure(task.target(b), b))
        assert all(np.isnan(e) for e in flat(errors).values())


@pytest.mark.parametrize("task", ["inpainting", "segmentation", "landmarks"])
def test_l2_as_a_mean_or_summed_over_channels(task):
    b = batch(count=2, size=32)
    settings = ({"loss": {"l2": l2}, "data": {"image_size": 32}} for l2 in ("mean", "sum_channels"))
    mean, summed = (build_tasks(validate_config(tree, "test"))[task] for tree in settings)
    target = mean.target(b)
    output = torch.rand_like(target)
    squares = ((output - target) ** 2).numpy()
    found = [float(t.reconstruction(output, b, target)) for t in (mean, summed)]
    if task == "inpainting":  # L1 is no L2
        assert found[0] == found[1]
    else:
        assert found == pytest.approx([squares.mean(), squares.sum(1).mean()], rel=1e-5)


def test_the_norm_of_each_sample_has_a_finite_gradient_at_zero():
    generator = np.random.default_rng(3)
    output, target = (generator.normal(size=(4, 11, 8, 8)).astype(np.float32) for _ in range(2))
    target[1] = output[1]  # one sample is right already
    task = Segmentation(Config(loss={"l2": "norm"}))
    value = torch.tensor(output, requires_grad=True)
    loss = task.reconstruction(value, None, torch.tensor(target))
    norms = np.sqrt(((output - target).astype(np.float64) ** 2).sum((1, 2, 3)))
    assert loss.item() == pytest.approx(norms.mean(), rel=1e-5) and norms[1] == 0
    (gradient,) = torch.autograd.grad(loss, value)
    expected = np.where(norms > 0, (output - target).T / np.maximum(norms, 1e-30) / 4, 0).T
    assert np.allclose(gradient.numpy(), expected, atol=1e-7)
    # Micro-batches of equal sizes have the batch's loss as their mean.
    halves = [task.reconstruction(value[i : i + 2], None, torch.tensor(target[i : i + 2])) for i in (0, 2)]
    assert sum(halves).item() / 2 == pytest.approx(loss.item(), rel=1e-6)


@pytest.mark.parametrize("concentrated", [False, True])
@pytest.mark.parametrize("over", ["all", "hole"])
def test_sums_over_channels_are_their_number_times_the_mean(concentrated, over):
    b = batch(4, 32)
    losses = []
    for l1 in ("mean", "sum_channels"):
        config = Config(model={"concentrated": concentrated}, loss={"l1": l1, "inpainting_over": over})
        losses.append(float(Inpainting(config).reconstruction(b.input_B3HW * 0.5, b, b.image_B3HW)))
    assert losses[1] == pytest.approx(3 * losses[0]) and losses[0] > 0
