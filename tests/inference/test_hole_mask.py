import numpy as np
import pytest

from collagan_dist.data.readers.colour_profile import to_srgb
from collagan_dist.inference.face_views import crop_window
from collagan_dist.inference.hole_mask import cover_hole


@pytest.mark.parametrize("window", [(3, 5, 64), (0, 0, 150), (-20, 10, 131), (40, 30, 37), (10, 10, 63)])
def test_what_is_painted_into_a_hole_is_seen_by_no_pixel_outside_of_it(window):
    """Whatever the scale, and where the window leaves the picture: pixels outside the hole do not depend on those inside."""
    rng = np.random.default_rng(1)
    hole = np.zeros((120, 150), bool)
    hole[20:61, 30:90], hole[100, 7] = True, True
    one = rng.integers(0, 256, (120, 150, 3), np.uint8)
    other = np.where(hole[..., None], 255 - one, one)
    seen = [to_srgb(crop_window(pixels, window, 64), None) for pixels in (one, other)]
    outside = ~cover_hole(hole, window, 64)
    assert outside.any() and not outside.all()
    np.testing.assert_array_equal(seen[0][outside], seen[1][outside])


def test_at_its_own_size_and_by_means_it_is_no_larger_than_it_must():
    hole = np.random.default_rng(2).random((64, 64)) < 0.2
    np.testing.assert_array_equal(cover_hole(hole, (0, 0, 64), 64), hole)
    blocks = hole.reshape(16, 4, 16, 4).any((1, 3))
    np.testing.assert_array_equal(cover_hole(hole, (0, 0, 64), 16), blocks)
    assert not cover_hole(None, (0, 0, 64), 16).any()
