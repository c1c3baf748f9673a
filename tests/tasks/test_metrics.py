"""Metrics against naive implementations, read-outs on known answers, baselines that are what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from collagan_dist import counter
from collagan_dist.config import Config
from collagan_dist.contract import CLASSES, LANDMARKS, Batch
from collagan_dist.data import holes
from collagan_dist.tasks import build_tasks
from collagan_dist.tasks.inpainting import composite, to_bytes
from collagan_dist.tasks.landmarks import heatmaps, read_points
from collagan_dist.tasks.segmentation import read_labels


def batch(count: int = 4, size: int = 32, kind: str = "block") -> Batch:
    torch.manual_seed(0)
    keys = torch.from_numpy(counter.tensor_keys(counter.key64(1, np.arange(count))))
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
