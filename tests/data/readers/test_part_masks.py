from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from collagan_dist.data.readers.part_masks import compose_label_map
from collagan_dist.errors import DataError


def write_masks(folder: Path, masks: dict[str, np.ndarray], mode: str = "L") -> str:
    folder.mkdir(exist_ok=True)
    for part, mask in masks.items():
        Image.fromarray(mask.astype(np.uint8) * 255).convert(mode).save(folder / f"00000_{part}.png")
    return str(folder / "00000")


def box(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros((32, 32), bool)
    mask[top:bottom, left:right] = True
    return mask


def test_painting_order(tmp_path):
    """Later over earlier; glasses leave brows and eyes; ears, earrings, neck, necklace, cloth and hat are background."""
    skin, lens = box(4, 28, 4, 28), box(8, 14, 4, 28)
    masks = {
        "skin": skin, "eye_g": lens, "l_eye": box(10, 12, 18, 22), "r_eye": box(10, 12, 8, 12), "l_brow": box(7, 9, 18, 22),
        "r_brow": box(7, 9, 8, 12), "nose": box(12, 18, 14, 18), "mouth": box(20, 24, 10, 22), "u_lip": box(19, 21, 10, 22),
        "l_lip": box(23, 25, 10, 22), "l_ear": box(10, 14, 26, 30), "ear_r": box(13, 15, 26, 30), "neck": box(26, 32, 10, 20),
        "neck_l": box(28, 29, 10, 20), "cloth": box(29, 32, 0, 32), "hair": box(2, 8, 2, 30), "hat": box(0, 4, 0, 32),
    }  # fmt: skip
    order = [("skin", 1), ("nose", 6), ("eye_g", 1), ("r_eye", 4), ("l_eye", 5), ("r_brow", 2), ("l_brow", 3), ("l_ear", 0),
             ("mouth", 8), ("u_lip", 7), ("l_lip", 9), ("hair", 10), ("hat", 0), ("ear_r", 0), ("neck_l", 0), ("neck", 0),
             ("cloth", 0)]  # fmt: skip
    expected = np.zeros((32, 32), np.uint8)
    for part, value in order:
        expected[masks[part]] = value
    got = compose_label_map(write_masks(tmp_path / "m", masks), (32, 32))
    assert np.array_equal(got, expected)
    assert (got[10:12, 8:12] == 4).all() and got[8, 9] == 2 and got[13, 5] == 1  # seen through the glasses
    assert np.array_equal(
        compose_label_map(write_masks(tmp_path / "m", masks), (64, 64)), expected.repeat(2, 0).repeat(2, 1)
    )


@pytest.mark.parametrize(("x", "value"), [(6, 4), (20, 5)])
@pytest.mark.parametrize("name", ["l_eye", "r_eye"])
def test_one_eye_alone_has_the_side_of_the_face_it_lies_on(tmp_path, x, value, name):
    """The face's middle (column 15.5 of the skin) counts: neither the name nor the picture's middle."""
    empty = np.zeros((32, 32), bool)
    other = {"l_eye": "r_eye", "r_eye": "l_eye"}[name]
    prefix = write_masks(tmp_path / "m", {"skin": box(4, 28, 4, 28), name: box(10, 12, x, x + 3), other: empty})
    assert set(np.unique(compose_label_map(prefix, (32, 32)))) == {0, 1, value}
    aside = write_masks(tmp_path / "n", {"skin": box(4, 28, 0, 12), name: box(10, 12, 8, 11)})
    assert set(np.unique(compose_label_map(aside, (32, 32)))) == {0, 1, 5}


def test_masks_of_any_mode(tmp_path):
    skin = box(4, 28, 4, 28)
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "I;16"):
        prefix = write_masks(tmp_path / "m", {"skin": skin}, mode)
        assert np.array_equal(compose_label_map(prefix, (32, 32)), skin), mode
    palette = Image.fromarray((~skin).astype(np.uint8)).convert("P")
    palette.putpalette([255, 255, 255, 0, 0, 0])
    palette.save(f"{prefix}_skin.png")
    assert np.array_equal(compose_label_map(prefix, (32, 32)), skin)  # by its colours


def test_masks_that_do_not_fit_are_refused(tmp_path):
    for masks, text in (
        ({}, r"00000_\*.png: there is no mask of any part"),
        ({"skin": np.zeros((16, 32))}, "00000_skin.png: the mask is 32x16, .* its 32x32 picture"),
        (
            {"skin": box(4, 28, 4, 28), "nose": np.zeros((16, 16))},
            "00000_nose.png: the mask is 16x16, .*skin.png is 32x32",
        ),
    ):
        prefix = write_masks(tmp_path / "m", masks)
        with pytest.raises(DataError, match=text):
            compose_label_map(prefix, (32, 32))
    Path(f"{prefix}_nose.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"00000_nose.png: the mask is damaged"):
        compose_label_map(prefix, (32, 32))
