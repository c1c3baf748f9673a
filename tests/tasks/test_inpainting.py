import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from collagan_dist.config.load import validate_config
from collagan_dist.config.tree import Config
from collagan_dist.tasks import build_tasks, ssim
from collagan_dist.tasks.inpainting import composite, to_bytes
from collagan_dist.tasks.landmarks import read_points
from tests.tasks.batches import batch


def test_a_perfect_completion_scores_the_cap():
    b = batch()
    rows = build_tasks(Config())["inpainting"].measure(b.image_B3HW, b)
    assert (rows["psnr"] == 100).all() and (rows["psnr_hole"] == 100).all() and (rows["ssim"] == 1).all()


def test_baselines():
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


# Wang 2004 as printed has Gaussian windows.
WINDOWS: dict[str, dict] = {
    "uniform": {"win_size": 7},
    "gaussian": {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
}


@pytest.mark.parametrize("kind", ["block", "O1", "O6", "noise", "pattern", "corner"])
@pytest.mark.parametrize("window", WINDOWS)
def test_ssim_and_psnr_are_scikit_image_s(window, kind):
    """To 1e-9, wherever the hole is: also at the picture's border, and where holes of a batch differ in size."""
    b = batch(count=5, size=64, kind="block" if kind == "corner" else kind)
    if kind == "corner":
        b.hole_B1HW = torch.zeros_like(b.hole_B1HW)
        for number, (top, left, bottom, right) in enumerate(
            [(0, 0, 9, 5), (60, 3, 64, 60), (20, 63, 30, 64), (1, 1, 63, 63)]
        ):
            b.hole_B1HW[number, 0, top:bottom, left:right] = True
        b.input_B3HW = torch.where(b.hole_B1HW, 0.3, b.image_B3HW)
    output = (b.image_B3HW + 0.2 * torch.randn_like(b.image_B3HW)).clamp(-1, 1)
    rows = build_tasks(validate_config({"evaluate": {"ssim": window}}, "test"))["inpainting"].measure(output, b)
    holes = b.hole_B1HW[:, 0].numpy()
    for i, (done, truth) in enumerate(zip(to_bytes(composite(output, b)), to_bytes(b.image_B3HW), strict=True)):
        hole = holes[i]
        ssim, at_each = structural_similarity(truth, done, channel_axis=2, data_range=255, full=True, **WINDOWS[window])
        assert rows["ssim"][i] == pytest.approx(ssim, abs=1e-9)
        if not hole.any():  # the last one of the corners
            assert np.isnan(rows["ssim_hole"][i]) and np.isnan(rows["psnr_hole"][i]) and rows["psnr"][i] == 100
            continue
        assert rows["ssim_hole"][i] == pytest.approx(at_each[hole].mean(), abs=1e-9)
        assert rows["psnr"][i] == pytest.approx(peak_signal_noise_ratio(truth, done), abs=1e-9)
        assert rows["psnr_hole"][i] == pytest.approx(peak_signal_noise_ratio(truth[hole], done[hole]), abs=1e-9)


def test_a_gpu_s_map_is_that_of_a_cpu():
    truth, other = torch.randint(0, 256, (2, 5, 20, 31, 3), dtype=torch.uint8)
    for window in ssim.WINDOWS.values():
        assert torch.allclose(
            ssim._map(truth, other, window), ssim._map_on_cpu(truth, other, window), rtol=0, atol=1e-12
        )
