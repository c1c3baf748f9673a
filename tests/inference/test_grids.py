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


def test_titles_stand_above_their_columns():
    white = torch.full((1, 3, 32, 32), 1.0)
    grid = draw_titled_grid({"masked": white, "overlay": -white})
    assert grid.shape == (16 + 98, 2 * 98, 3)  # three times as large, so that a title fits
    head = grid[:16]
    assert (head[:, :98] < 99).any() and (head[:, 98:] < 99).any() and (head[:, 60:98] == 255).all()
    assert (grid[16:112, :96] == 255).all() and not grid[16:112, 98:194].any()
