import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from collagan_dist.data.readers.colour_profile import to_srgb
from collagan_dist.inference.hole_mask import HolePart
from collagan_dist.inference.paste import encode_photograph, paste, place_hole, resample
from collagan_dist.types import image_from_pixels
from tests.data.profiles import adobe_rgb, grey_profile


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def image(pixels):
    return image_from_pixels(torch.from_numpy(pixels)[None])[0].contiguous()


@pytest.mark.parametrize("side", [100, 64, 31])
def test_resampled_as_opencv_resizes(side):
    values = image(picture(64, 64))
    method = cv2.INTER_CUBIC if side > 64 else cv2.INTER_AREA
    whole = cv2.resize(values.permute(1, 2, 0).numpy(), (side, side), interpolation=method)
    part = resample(values, (10, -20, side), (15, 0, 40, 9)).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(part, whole[20:29, 5:30], atol=1e-5)


@pytest.mark.parametrize("blend", [False, True])
@pytest.mark.parametrize("window", [(20, 10, 64), (-5, 3, 64), (-30, -20, 300), (40, 30, 40)])
def test_outside_the_hole_nothing_changes(window, blend):
    pixels = picture(200, 220)
    hole = np.zeros((200, 220), bool)
    hole[40:60, 45:59] = True
    hole[45, 50] = False
    given = pixels.copy()
    paste(pixels, place_hole(hole, hole, window, hole.shape), image(picture(64, 64, 1)), window, None, blend)
    changed = (pixels != given).any(-1)
    assert not changed[~hole].any() and changed[hole].mean() > 0.9


def test_at_the_models_size_pixels_are_those_of_the_model():
    pixels, done = picture(64, 64), picture(64, 64, 1)
    hole = np.random.default_rng(2).random((64, 64)) < 0.5
    expected = np.where(hole[..., None], done, pixels)
    paste(pixels, place_hole(None, hole, (0, 0, 64), (64, 64)), image(done), (0, 0, 64), None, True)
    np.testing.assert_array_equal(pixels, expected)


def test_blending_at_full_size_removes_a_wrong_tone():
    """The photograph is a ramp; its completion is that ramp, darker. Blended, the ramp is back within two levels."""
    ramp = np.repeat(np.linspace(60, 200, 256).round().astype(np.uint8)[None, :, None], 256, 0).repeat(3, 2)
    hole = np.zeros((256, 256), bool)
    hole[80:180, 90:170] = True
    done = image(cv2.resize(ramp, (64, 64), interpolation=cv2.INTER_AREA)) - 0.3
    for blend in (False, True):
        pixels = ramp.copy()
        paste(pixels, place_hole(hole, hole, (0, 0, 256), hole.shape), done, (0, 0, 256), None, blend)
        off = np.abs(pixels.astype(int) - ramp)[hole].max()
        assert off <= 2 if blend else off > 30


def test_a_made_hole_lies_in_the_window_and_is_cut_at_the_picture():
    made = np.zeros((4, 4), bool)
    made[:2, 1:] = True
    placed = place_hole(None, made, (-2, -1, 8), (20, 5))
    found = np.zeros((20, 5), bool)
    left, top, right, bottom = placed.box
    found[top:bottom, left:right] = placed.hole_HW
    expected = np.zeros((20, 5), bool)
    expected[0:3, 0:5] = True  # the window's rows 0 to 3 and columns 2 to 7, of which the picture has these
    np.testing.assert_array_equal(found, expected)
    nothing = place_hole(None, np.zeros((4, 4), bool), (0, 0, 8), (20, 5))
    assert nothing.hole_HW.size == 0


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (600, 5)])
def test_a_photograph_is_encoded_as_it_is(shape):
    pixels = picture(*shape)
    for profile in (None, adobe_rgb()):  # whose bytes hold the time
        with Image.open(io.BytesIO(b"".join(encode_photograph(pixels, profile)))) as stored:
            np.testing.assert_array_equal(np.asarray(stored), pixels)
            assert stored.info.get("icc_profile") == profile


def test_a_grey_photograph_keeps_its_profile_of_grey():
    """What is pasted is grey in its scale, and the file is a grey PNG: readers refuse one in colours with such a profile."""
    profile = grey_profile(1.0)
    pixels = np.full((64, 64, 3), 55, np.uint8)
    shown = to_srgb(pixels, profile)
    assert shown.min() > 120  # light of 55/255 is much lighter in sRGB's scale
    done = image_from_pixels(torch.from_numpy(shown)[None])[0] + torch.tensor([0.02, 0.0, -0.02])[:, None, None]
    hole = HolePart((10, 10, 30, 30), np.ones((20, 20), bool))
    paste(pixels, hole, done, (0, 0, 64), profile, blend=False)
    assert np.abs(pixels.astype(int) - 55).max() <= 2 and (pixels == pixels[..., :1]).all()
    with Image.open(io.BytesIO(b"".join(encode_photograph(pixels, profile)))) as image:
        assert image.mode == "L" and image.info["icc_profile"] == profile
        assert np.array_equal(np.asarray(image), pixels[..., 0])
