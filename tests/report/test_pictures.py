import base64
import io

import numpy as np
from PIL import Image

from collagan_dist.report.pictures import embed


def test_a_small_picture_is_unchanged_and_a_wide_one_is_scaled(run, tmp_path):
    grid = run / "grids/step-00000012.png"
    original = np.asarray(Image.open(grid).convert("RGB"))
    embedded, small = embed(grid, 1800), embed(grid, 100)
    shown, scaled = (Image.open(io.BytesIO(base64.b64decode(e.uri.partition(",")[2]))) for e in (embedded, small))
    assert embedded.uri.startswith("data:image/png") and np.array_equal(np.asarray(shown), original)
    assert (embedded.height, embedded.width) == original.shape[:2] and small.width == scaled.width == 100


def test_a_large_photograph_becomes_a_jpeg(tmp_path):
    y, x = np.mgrid[0:800, 0:800] / 4
    grain = np.random.default_rng(0).integers(0, 12, (800, 800, 3))
    Image.fromarray((np.stack([x, y, x], axis=-1) + grain).astype(np.uint8)).save(tmp_path / "photograph.png")
    assert embed(tmp_path / "photograph.png", 1800).uri.startswith("data:image/jpeg")
