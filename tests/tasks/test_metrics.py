"""Metrics against naive implementations, read-outs on known answers, baselines that are what they say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from collagan_dist import rng
from collagan_dist.config.load import validate_config
from collagan_dist.config.tree import Config
from collagan_dist.data.loading import holes
from collagan_dist.tasks import build_tasks
from collagan_dist.tasks.inpainting import composite, to_bytes
from collagan_dist.tasks.landmarks import heatmaps, read_points
from collagan_dist.tasks.segmentation import read_labels
from collagan_dist.types import CLASSES, LANDMARKS, Batch


def batch(count: int = 4, size: int = 32, kind: str = "block") -> Batch:
    torch.manual_seed(0)
    keys = torch.from_numpy(rng.tensor_keys(rng.key64(1, np.arange(count))))
    image = torch.nn.functional.interpolate(torch.rand(count, 3, 6, 6) * 2 - 1, size, mode="bilinear")
    hole = holes.HOLES[kind](keys, size)
    label = torch.randint(0, len(CLASSES), (count, size, size), dtype=torch.uint8)
    label[0][label[0] == 8] = 0
    points = torch.rand(count, len(LANDMARKS), 2) * (size - 9) + 4
    return Batch(
        image, holes.occlude(image, hole, kind, keys), hole, label, points, np.arange(count), np.zeros(count), keys
    )


def naive_psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = sum((float(x) - float(y)) ** 2 for x, y in zip(a.ravel(), b.ravel(), strict=True)) / a.size
    return 100.0 if error == 0 else min(100.0, 10 * np.log10(255**2 / error))


def naive_ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(H-6, W-6, 3): SSIM of every whole 7x7 window, unbiased variances, as Wang 2004 with skimage's constants."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    height, width = a.shape[:2]
    result = np.zeros((height - 6, width - 6, 3))
    for y in range(height - 6):
        for x in range(width - 6):
            for c in range(3):
                p, q = (z[y : y + 7, x : x + 7, c].astype(float).ravel() for z in (a, b))
                cov = np.cov(p, q)
                result[y, x, c] = ((2 * p.mean() * q.mean() + c1) * (2 * cov[0, 1] + c2)) / (
                    (p.mean() ** 2 + q.mean() ** 2 + c1) * (cov[0, 0] + cov[1, 1] + c2)
                )
    return result


def test_psnr_and_ssim() -> None:
    b = batch(count=2, size=24)
    b.hole_B1HW = torch.zeros_like(b.hole_B1HW)
    b.hole_B1HW[0, :, 5:17, 4:16] = True
    b.hole_B1HW[1, :, 8:20, 6:18] = True
    task = build_tasks(Config())["inpainting"]
    output = (b.image_B3HW + 0.2 * torch.randn_like(b.image_B3HW)).clamp(-1, 1)
    rows = task.measure(output, b)
    done, truth = to_bytes(composite(output, b)), to_bytes(b.image_B3HW)
    for i in range(2):
        hole = b.hole_B1HW[i, 0].numpy()
        assert rows["psnr"][i] == pytest.approx(naive_psnr(truth[i], done[i]))
        assert rows["psnr_hole"][i] == pytest.approx(naive_psnr(truth[i][hole], done[i][hole]))
        ssim = naive_ssim_map(truth[i], done[i])
        assert rows["ssim"][i] == pytest.approx(ssim.mean())
        # Windows that leave the picture have no naive value: compare where the hole's pixels are centres of whole ones.
        inner = hole[3:-3, 3:-3]
        if inner.sum() == hole.sum():
            assert rows["ssim_hole"][i] == pytest.approx(ssim[inner].mean())
    values, errors = task.summarize(rows)
    assert values["psnr"] == pytest.approx(rows["psnr"].mean())
    assert errors["psnr"] == pytest.approx(rows["psnr"].std(ddof=1) / np.sqrt(2))


def test_a_perfect_completion_scores_the_cap() -> None:
    b = batch()
    rows = build_tasks(Config())["inpainting"].measure(b.image_B3HW, b)
    assert (rows["psnr"] == 100).all() and (rows["psnr_hole"] == 100).all() and (rows["ssim"] == 1).all()


def test_dice_counted_by_hand() -> None:
    b = batch()
    task = build_tasks(Config())["segmentation"]
    torch.manual_seed(1)
    output = torch.randn(4, len(CLASSES), 32, 32)
    values, _ = task.summarize(task.measure(output, b))
    found, truth, hole = read_labels(output).numpy(), b.label_BHW.numpy(), b.hole_B1HW[:, 0].numpy()

    def dice(f: np.ndarray, t: np.ndarray, c: int) -> float:
        return 2 * ((f == c) & (t == c)).sum() / ((f == c).sum() + (t == c).sum())

    for c in range(1, 10):
        name = CLASSES[c]
        assert values["dice"][name] == pytest.approx(dice(found, truth, c))
        assert values["dice_hole"][name] == pytest.approx(dice(found[hole], truth[hole], c))
        assert values["dice_per_image"][name] == pytest.approx(np.mean([dice(found[i], truth[i], c) for i in range(4)]))
    assert values["dice"]["mean"] == pytest.approx(np.mean([values["dice"][CLASSES[c]] for c in range(1, 10)]))


def test_dice_of_a_class_that_nobody_has_is_left_out() -> None:
    b = batch()
    b.label_BHW[b.label_BHW == 8] = 0
    task = build_tasks(Config())["segmentation"]
    values, _ = task.summarize(task.measure(task.target(b), b))
    assert "teeth" not in values["dice"] and values["dice"]["mean"] == 1.0
    assert set(values["dice"]) == {*CLASSES[1:8], CLASSES[9], "mean"}


def test_landmarks_are_read_where_they_were_drawn() -> None:
    torch.manual_seed(2)
    points = torch.rand(50, 5, 2) * 56 + 4
    error = np.linalg.norm(read_points(heatmaps(points, 64, 1.5)) - points.numpy(), axis=-1)
    assert error.max() < 0.25 * 2**0.5 + 1e-5  # a quarter pixel on each axis
    naive = np.zeros((64, 64))
    x, y = points[0, 0].tolist()
    for v in range(64):
        for u in range(64):
            naive[v, u] = 2 * np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * 1.5**2)) - 1
    assert np.abs(heatmaps(points, 64, 1.5)[0, 0].numpy() - naive).max() < 1e-5


def test_landmark_errors_all_and_in_the_hole() -> None:
    b = batch(size=64)
    task = build_tasks(Config.model_validate({"data": {"image_size": 64}}, strict=False))["landmarks"]
    moved = b.points_BK2 + torch.tensor([3.0, -4.0])
    rows = task.measure(heatmaps(moved, 64, 1.5), b)
    assert np.abs(rows["landmark_error"] - 5).max() < 0.36
    x, y = b.points_BK2.round().long().unbind(-1)
    inside = b.hole_B1HW[:, 0][torch.arange(4)[:, None], y, x].numpy()
    assert (np.isnan(rows["landmark_error_hole"]) == ~inside).all() and inside.any() and not inside.all()
    values, errors = task.summarize(rows)
    assert values["landmark_error"]["mean"] == pytest.approx(np.mean([values["landmark_error"][p] for p in LANDMARKS]))
    assert errors["landmark_error"]["mean"] == pytest.approx(rows["landmark_error"].mean(1).std(ddof=1) / 2)


def test_baselines() -> None:
    b = batch(size=64)
    config = Config.model_validate({"data": {"image_size": 64}}, strict=False)
    tasks = build_tasks(config)
    mean_points = b.points_BK2.mean(0).numpy()
    drawn = tasks["landmarks"].baselines(b, {"mean_points": mean_points})["mean_landmarks"]
    assert np.abs(read_points(drawn) - mean_points).max() <= 0.25 + 1e-5
    fills = tasks["inpainting"].baselines(b, {})
    seen = ~b.hole_B1HW[0, 0]
    assert torch.allclose(
        fills["mean_colour"][0, :, 0, 0], torch.stack([b.image_B3HW[0, c][seen].mean() for c in range(3)]), atol=1e-5
    )
    # A biharmonic fill continues a plane exactly.
    ramp = torch.linspace(-0.5, 0.5, 64).expand(4, 3, 64, 64).contiguous()
    b.image_B3HW = ramp
    hole = torch.zeros_like(b.hole_B1HW)
    hole[:, :, 20:40, 20:40] = True
    b.hole_B1HW = hole
    assert (tasks["inpainting"].baselines(b, {})["biharmonic"] - ramp).abs().max() < 1e-3


def naive_gaussian_ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(H-10, W-10, 3): Wang 2004 as printed, windows of 11 pixels with weights of σ 1.5, one window at a time."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    at = np.arange(-5, 6)
    weights = np.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    height, width = a.shape[:2]
    result = np.zeros((height - 10, width - 10, 3))
    for y, x, c in np.ndindex(*result.shape):
        p, q = (z[y : y + 11, x : x + 11, c].astype(float) for z in (a, b))
        mp, mq = (weights * p).sum(), (weights * q).sum()
        vp, vq, cov = ((weights * s).sum() for s in ((p - mp) ** 2, (q - mq) ** 2, (p - mp) * (q - mq)))
        result[y, x, c] = ((2 * mp * mq + c1) * (2 * cov + c2)) / ((mp**2 + mq**2 + c1) * (vp + vq + c2))
    return result


@pytest.mark.parametrize("window", ["uniform", "gaussian"])
def test_ssim_and_psnr_are_scikit_image_s_and_wang_s(window: str) -> None:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    b = batch(count=3, size=32)
    b.hole_B1HW = torch.zeros_like(b.hole_B1HW)
    b.hole_B1HW[:, :, 10:22, 8:24] = True
    task = build_tasks(validate_config({"evaluate": {"ssim": window}}, "test"))["inpainting"]
    output = (b.image_B3HW + 0.2 * torch.randn_like(b.image_B3HW)).clamp(-1, 1)
    rows = task.measure(output, b)
    naive, edge, options = {
        "uniform": (naive_ssim_map, 3, {"win_size": 7}),
        "gaussian": (naive_gaussian_ssim_map, 5, {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}),
    }[window]  # fmt: skip
    done, truth = to_bytes(composite(output, b)), to_bytes(b.image_B3HW)
    hole = b.hole_B1HW[0, 0, edge:-edge, edge:-edge].numpy()
    for i in range(3):
        ssim = naive(truth[i], done[i])
        assert rows["ssim"][i] == pytest.approx(ssim.mean())
        assert rows["ssim_hole"][i] == pytest.approx(ssim[hole].mean())
        assert rows["ssim"][i] == pytest.approx(
            structural_similarity(truth[i], done[i], channel_axis=2, data_range=255, **options)
        )
        assert rows["psnr"][i] == pytest.approx(peak_signal_noise_ratio(truth[i], done[i]))
    other = build_tasks(
        validate_config({"evaluate": {"ssim": "uniform" if window == "gaussian" else "gaussian"}}, "test")
    )
    assert (np.abs(other["inpainting"].measure(output, b)["ssim"] - rows["ssim"]) > 1e-4).all()


def test_both_read_outs_are_reported() -> None:
    b = batch(count=40, size=64)
    sizes = {"data": {"image_size": 64}}
    quarter = build_tasks(validate_config(sizes, "test"))["landmarks"]
    plain = build_tasks(validate_config({**sizes, "evaluate": {"readout": "argmax"}}, "test"))["landmarks"]
    drawn = heatmaps(b.points_BK2, 64, 1.5)
    largest = np.array([[np.unravel_index(m.argmax(), m.shape)[::-1] for m in maps] for maps in drawn.numpy()])
    assert np.array_equal(read_points(drawn, quarter=False), largest)
    moved = read_points(drawn) - largest
    assert set(np.abs(moved).ravel()) <= {0.0, 0.25} and (np.abs(moved) == 0.25).mean() > 0.95
    rows, plain_rows = quarter.measure(drawn, b), plain.measure(drawn, b)
    assert np.array_equal(rows["landmark_error_argmax"], plain_rows["landmark_error"])
    assert rows["landmark_error"].mean() < 0.7 * rows["landmark_error_argmax"].mean()  # that is what it is for
    assert "landmark_error_argmax" not in plain_rows
    values, errors = quarter.summarize(rows)
    assert values["landmark_error_argmax"].keys() == errors["landmark_error_argmax"].keys() == {*LANDMARKS, "mean"}
    inside = ~np.isnan(plain_rows["landmark_error_hole"])
    assert np.array_equal(plain_rows["landmark_error_hole"][inside], plain_rows["landmark_error"][inside])


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
def test_standard_errors_are_those_of_a_bootstrap(task: str) -> None:
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


def test_errors_of_too_few_samples_are_unknown_not_zero() -> None:
    b = batch(count=1)
    for task in build_tasks(Config()).values():
        _, errors = task.summarize(task.measure(task.target(b), b))
        assert all(np.isnan(e) for e in flat(errors).values())


@pytest.mark.parametrize(("task", "channels"), [("segmentation", 11), ("landmarks", 5)])
def test_l2_as_a_mean_or_summed_over_channels(task: str, channels: int) -> None:
    b = batch(count=2, size=32)
    mean, summed = (
        build_tasks(validate_config({"loss": {"l2": l2}, "data": {"image_size": 32}}, "test"))[task] for l2 in ("mean", "sum_channels")
    )  # fmt: skip
    target = mean.target(b)
    output = torch.rand_like(target)
    error = ((output - target) ** 2).numpy()
    assert float(mean.reconstruction(output, b, target)) == pytest.approx(error.mean(), rel=1e-5)
    assert float(summed.reconstruction(output, b, target)) == pytest.approx(error.sum(1).mean(), rel=1e-5)
    assert float(summed.reconstruction(output, b, target) / mean.reconstruction(output, b, target)) == pytest.approx(
        channels
    )
    inpainting = [
        build_tasks(validate_config({"loss": {"l2": l2}}, "test"))["inpainting"] for l2 in ("mean", "sum_channels")
    ]
    losses = {float(t.reconstruction(output[:, :3], b, b.image_B3HW)) for t in inpainting}
    assert len(losses) == 1  # L1 is no L2


def test_heatmaps_at_another_size_than_the_model_s() -> None:
    """evaluate.size: the Gaussian keeps its share of the picture."""
    b = batch(count=2, size=64)
    small = build_tasks(validate_config({"data": {"image_size": 32}}, "test"))["landmarks"]
    assert torch.equal(small.target(b), heatmaps(b.points_BK2, 64, 1.5))
