import cv2
import numpy as np
import torch

from collagan_dist.inference.grids import draw_grid, draw_titled_grid, encode_png


def test_a_grid_has_a_row_per_sample_and_a_column_per_picture(tmp_path):
    black, white = torch.full((3, 3, 8, 8), -1.0), torch.full((3, 3, 8, 8), 1.0)
    grid = draw_grid({"input": black, "original": white})
    assert grid.shape == (3 * 10, 2 * 10, 3) and grid.dtype == np.uint8  # 8 pixels and a gap of 2
    assert not grid[10:18, 0:8].any() and (grid[10:18, 10:18] == 255).all()
    (tmp_path / "grid.png").write_bytes(encode_png(grid))
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "grid.png")), grid)


def test_a_titled_grid_has_a_row_per_sample():
    white = torch.full((2, 3, 32, 32), 1.0)
    grid = draw_titled_grid({"masked": white, "overlay": -white})
    assert grid.shape == (30 + 2 * 133 - 5, 2 * 133 - 5, 3)  # four times as large, so that a title fits
    assert (grid[30:158, :128] == 255).all() and not grid[30:158, 133:].any() and not grid[163:, 133:].any()
