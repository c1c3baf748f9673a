import numpy as np
import pytest
from skimage.restoration import inpaint_biharmonic

from collagan_dist.tasks import biharmonic
from tests.tasks.batches import batch

SIZE = 48


def corners() -> np.ndarray:
    holes = np.zeros((7, SIZE, SIZE), bool)
    for hole, (top, left, bottom, right) in zip(
        holes, [(0, 0, 9, 5), (40, 3, SIZE, 40), (1, 20, 9, 30), (2, 2, 30, 46), (12, 0, 13, SIZE), (5, 5, 5, 5), (3, 9, 31, 53)], strict=True
    ):  # fmt: skip
        hole[top:bottom, left:right] = True
    holes[2, 30:33, 40:44] = True  # of two parts
    return holes


@pytest.mark.parametrize("kind", ["block", "O1", "O4", "noise", "pattern", "corners"])
def test_fills_are_scikit_image_s(kind):
    images = np.random.default_rng(1).uniform(-1, 1, (7, 3, SIZE, SIZE)).cumsum(2).cumsum(3)
    holes = corners() if kind == "corners" else batch(count=7, size=SIZE, kind=kind).hole_B1HW[:, 0].numpy()
    filled = biharmonic.fill(images, holes)
    for image, hole, ours in zip(images, holes, filled, strict=True):
        theirs = inpaint_biharmonic(image * ~hole, hole, channel_axis=0) if hole.any() else image
        assert np.abs(ours - theirs).max() < 1e-9 * np.abs(image).max()
        assert (ours[:, ~hole] == image[:, ~hole]).all()


def test_a_fill_depends_on_no_other_picture_of_the_batch():
    images = np.random.default_rng(1).uniform(-1, 1, (7, 3, SIZE, SIZE))
    holes = batch(count=7, size=SIZE, kind="block").hole_B1HW[:, 0].numpy()
    together = biharmonic.fill(images, holes)
    biharmonic._factorize.cache_clear()
    apart = [biharmonic.fill(images[n : n + 1], holes[n : n + 1])[0] for n in reversed(range(7))]
    assert (together == np.stack(apart[::-1])).all()


def test_equal_holes_are_factorized_once():
    images = np.zeros((3, 3, SIZE, SIZE))
    holes = np.zeros((3, SIZE, SIZE), bool)
    holes[0, 4:20, 9:30] = holes[1, 21:37, 2:23] = holes[2, 32:48, 9:30] = True  # the last one at the border
    biharmonic._factorize.cache_clear()
    biharmonic.fill(images, holes)
    assert biharmonic._factorize.cache_info().misses == 2


def test_pictures_need_not_be_square_nor_float64():
    image = np.random.default_rng(1).uniform(-1, 1, (1, 3, 20, 37)).astype(np.float32)
    hole = np.zeros((1, 20, 37), bool)
    hole[0, 5:16, 20:37] = True
    theirs = inpaint_biharmonic((image[0] * ~hole[0]).astype(np.float64), hole[0], channel_axis=0)
    ours = biharmonic.fill(image, hole)[0]
    assert ours.dtype == np.float64 and np.abs(ours - theirs).max() < 1e-9


def test_a_picture_that_is_all_hole_is_zero():
    assert (biharmonic.fill(np.ones((1, 3, 8, 8)), np.ones((1, 8, 8), bool)) == 0).all()
