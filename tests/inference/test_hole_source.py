import cv2
import numpy as np
import pytest
from PIL import Image

from collagan_dist.errors import ConfigError, DataError
from collagan_dist.inference.hole_source import HoleSource, parse_hole, read_photograph


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def corner(height, width):
    hole = np.zeros((height, width), bool)
    hole[: height // 2, : width // 2] = True
    return hole


def test_words_of_the_option(tmp_path):
    assert parse_hole("alpha").is_given and parse_hole(str(tmp_path)).is_given
    assert not parse_hole("block").is_given and not parse_hole("O3").is_given
    with pytest.raises(ConfigError, match="a folder of such files, alpha, or one of block"):
        parse_hole("blok")


def test_a_folder_of_holes_has_the_folders_of_the_pictures(tmp_path):
    source = HoleSource(None, tmp_path / "holes")
    pictures = tmp_path / "in"
    for name in ("a/1.png", "b/1_mask.png", "c/1.png", "c/1_mask.png"):
        save(tmp_path / "holes" / name, corner(8, 8))
    for folder, hole in (("a", "a/1.png"), ("b", "b/1_mask.png")):
        assert source.file(pictures / folder / "1.jpg", f"{folder}/1.jpg") == str(tmp_path / "holes" / hole)
    with pytest.raises(DataError, match=r"has 1.png, 1_mask.png for it"):
        source.file(pictures / "c/1.jpg", "c/1.jpg")
    with pytest.raises(DataError, match=r"neither d/1.png nor d/1_mask.png"):
        source.file(pictures / "d/1.jpg", "d/1.jpg")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((60, 40), np.s_[:30, :20]),
        ((120, 80), np.s_[:30, :20]),  # of the same proportions
        ((20, 20), np.s_[10:30, :20]),  # a square one lies in the centre square
    ],
)
def test_a_hole_is_brought_to_the_size_of_its_picture(shape, expected, tmp_path):
    picture = save(tmp_path / "p.png", np.full((60, 40, 3), 7, np.uint8))
    photo = read_photograph(picture, "a/p.png", HoleSource(None, save(tmp_path / "h.png", corner(*shape))))
    hole = np.zeros((60, 40), bool)
    hole[expected] = True
    assert photo.name == "a/p" and photo.shape == (60, 40)
    np.testing.assert_array_equal(photo.hole_HW, hole)


def test_a_thin_stroke_of_a_larger_hole_stays_whole(tmp_path):
    """A pixel of the picture is in the hole where any of the hole's pixels that it covers is."""
    hole = np.zeros((120, 160), bool)
    hole[40] = True
    hole[:, 77] = True
    save(tmp_path / "p.png", np.full((60, 80, 3), 90, np.uint8))
    save(tmp_path / "h.png", hole)
    found = read_photograph(tmp_path / "p.png", "p.png", HoleSource(None, tmp_path / "h.png")).hole_HW
    assert np.array_equal(found, hole.reshape(60, 2, 80, 2).any((1, 3)))


@pytest.mark.parametrize("hole", ["block", "alpha"])
@pytest.mark.parametrize("name", ["p.png", "p.tif"])
def test_sixteen_bits_a_channel_are_refused(name, hole, tmp_path):
    """Results have eight, so no pixel would stay as it is."""
    cv2.imwrite(str(tmp_path / name), np.full((60, 80, 3), 30_001, np.uint16))
    with pytest.raises(DataError, match="has 16 bits a channel, results have 8"):
        read_photograph(tmp_path / name, name, HoleSource(hole))
