"""Compose a label map from the annotation of CelebAMask-HQ, which has one mask per part of the face."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from collagan_dist.data.readers.picture import open_png, resize_nearest
from collagan_dist.errors import DataError
from collagan_dist.types import CLASSES

_CLASS = {name: number for number, name in enumerate(CLASSES)}

# The class of each part, in painting order, later over earlier: the order of the data set's own g_mask.py. Glasses come
# before the eyes, since their masks cover the whole lens and clear ones would erase the eyes. Left and right of a pair are
# decided by position, not by the part's name, which means the person's side.
PARTS = {
    "skin": _CLASS["face"],
    "nose": _CLASS["nose"],
    "eye_g": _CLASS["face"],
    "l_eye": _CLASS["left_eye"],
    "r_eye": _CLASS["right_eye"],
    "l_brow": _CLASS["left_eyebrow"],
    "r_brow": _CLASS["right_eyebrow"],
    "l_ear": 0,
    "r_ear": 0,
    "mouth": _CLASS["teeth"],
    "u_lip": _CLASS["upper_lip"],
    "l_lip": _CLASS["lower_lip"],
    "hair": _CLASS["hair"],
    "hat": 0,
    "ear_r": 0,
    "neck_l": 0,
    "neck": 0,
    "cloth": 0,
}
_PAIRS = (("l_brow", "r_brow"), ("l_eye", "r_eye"))


def compose_label_map(prefix: str, shape: tuple[int, int]) -> np.ndarray:
    """Return the (H, W) uint8 label map of the masks PREFIX_<part>.png that exist, in the picture's shape.

    Raises DataError for a picture without masks, and for a mask that is damaged or has another size or proportion.
    """
    masks: dict[str, np.ndarray] = {}
    for part in PARTS:
        if (mask := _read_mask(Path(f"{prefix}_{part}.png"), shape)) is not None:
            first, first_mask = next(iter(masks.items()), (part, mask))
            if mask.shape != first_mask.shape:
                raise DataError(
                    f"{prefix}_{part}.png: the mask is {_size(mask.shape)}, {prefix}_{first}.png is {_size(first_mask.shape)}; "
                    "copy both from the data set"
                )
            masks[part] = mask
    if not masks:
        raise DataError(f"{prefix}_*.png: there is no mask of any part; copy them from the data set")
    classes = PARTS | _classes_by_position(masks)
    labels = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for part, mask in masks.items():  # in the order of PARTS
        labels[mask] = classes[part]
    return resize_nearest(labels, shape)


def _classes_by_position(masks: dict[str, np.ndarray]) -> dict[str, int]:
    """Return the classes of brows and eyes: the left one of a pair is further left, one alone is on its side of the face."""
    result: dict[str, int] = {}
    for pair in _PAIRS:
        left, right = (PARTS[part] for part in pair)
        found = sorted((_centre(masks[part]), part) for part in pair if part in masks and masks[part].any())
        if len(found) == 2:
            result |= {found[0][1]: left, found[1][1]: right}
        elif found:
            x, part = found[0]
            skin = masks.get("skin")
            middle = _centre(skin) if skin is not None and skin.any() else (masks[part].shape[1] - 1) / 2
            result[part] = left if x < middle else right
    return result


def _centre(mask_HW: np.ndarray) -> float:
    """Return the column of the centroid."""
    counts = mask_HW.sum(0)
    return float((counts * np.arange(len(counts))).sum() / counts.sum())


def _read_mask(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """Return True where any colour is not zero; None without the file."""
    try:
        with open_png(str(path), "the mask", "copy it from the data set") as image:
            width, height = image.size
            # From the header: a mask that is larger than its picture may be a decompression bomb.
            if width > shape[1] or width * shape[0] != height * shape[1]:
                raise DataError(
                    f"{path}: the mask is {width}x{height}, which is no smaller copy of its {_size(shape)} picture; "
                    "copy both from the data set"
                )
            coloured = image.mode in ("P", "PA", "LA", "RGBA")  # neither palette indices nor opacity are colours
            values = np.asarray(image.convert("RGB") if coloured else image)
    except FileNotFoundError:
        return None
    return np.count_nonzero(np.atleast_3d(values), axis=-1) > 0


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
