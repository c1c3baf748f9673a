"""PSNR and SSIM against naive implementations and scikit-image, and the baselines of face completion."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from collagan_dist.config.load import validate_config
from collagan_dist.config.tree import Config
from collagan_dist.tasks import build_tasks
from collagan_dist.tasks.inpainting import composite, to_bytes
from collagan_dist.tasks.landmarks import read_points
from tests.tasks.batches import batch


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
