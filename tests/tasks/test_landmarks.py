import numpy as np
import pytest
import torch

from collagan_dist.config.load import validate_config
from collagan_dist.config.tree import Config
from collagan_dist.tasks import build_tasks
from collagan_dist.tasks.landmarks import heatmaps, read_points
from collagan_dist.types import LANDMARKS
from tests.tasks.batches import batch


def test_landmarks_are_read_where_they_were_drawn():
    torch.manual_seed(2)
    points = torch.rand(50, 5, 2) * 56 + 4
    error = np.linalg.norm(read_points(heatmaps(points, 64, 1.5)) - points.numpy(), axis=-1)
    assert error.max() < 0.25 * 2**0.5 + 1e-5  # a quarter pixel on each axis
    (x, y), (v, u) = points[0, 0].tolist(), np.indices((64, 64))
    naive = 2 * np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * 1.5**2)) - 1
    assert np.abs(heatmaps(points, 64, 1.5)[0, 0].numpy() - naive).max() < 1e-5


def test_landmark_errors_all_and_in_the_hole():
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


def test_both_read_outs_are_reported():
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


def test_heatmaps_at_another_size_than_the_model_s():
    """evaluate.size: the Gaussian keeps its share of the picture."""
    b = batch(count=2, size=64)
    small = build_tasks(validate_config({"data": {"image_size": 32}}, "test"))["landmarks"]
    assert torch.equal(small.target(b), heatmaps(b.points_BK2, 64, 1.5))
