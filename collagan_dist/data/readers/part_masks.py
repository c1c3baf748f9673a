"""CelebAMask-HQ's annotation: one mask a part of the face becomes one label map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from collagan_dist.errors import DataError
from collagan_dist.types import CLASSES

_CLASS = {name: number for number, name in enumerate(CLASSES)}

# Parts in the order in which they are painted, later over earlier, with the class they become: the order of the data set's
# own g_mask.py. (Glasses come before the eyes: their masks cover the whole lens, and clear ones would erase the eyes.) Left
# and right are settled by where a part lies, not by its name.
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
    """The (H, W) uint8 label map of the masks PREFIX_<part>.png that exist, resized to the picture's shape.

    Raises DataError for a picture without masks, and for a mask that is damaged or of another size or proportion.
    """
    masks: dict[str, np.ndarray] = {}
    for part in PARTS:
        if (mask := _read_mask(Path(f"{prefix}_{part}.png"), shape)) is not None:
            first = next(iter(masks.items()), (part, mask))
            if mask.shape != first[1].shape:
                raise DataError(
                    f"{prefix}_{part}.png: the mask is {_size(mask.shape)}, {prefix}_{first[0]}.png is {_size(first[1].shape)}; "
                    "copy both from the data set"
                )
            masks[part] = mask
    if not masks:
        raise DataError(f"{prefix}_*.png: there is no mask of any part; copy them from the data set")
    classes = PARTS | _by_position(masks)
    labels = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for part in PARTS:
        if part in masks:
            labels[masks[part]] = classes[part]
    return _resized(labels, shape)


def _by_position(masks: dict[str, np.ndarray]) -> dict[str, int]:
    """Classes of the parts that come in pairs: of two the one further left is the left one, one alone by its side of the face."""
    result: dict[str, int] = {}
    for pair in _PAIRS:
        left, right = (PARTS[part] for part in pair)
        found = sorted((_centre(masks[part]), part) for part in pair if part in masks and masks[part].any())
        if len(found) == 2:
            result |= {found[0][1]: left, found[1][1]: right}
        elif found:
            skin = masks.get("skin")
            x, part = found[0]
            whole = masks[part].shape[1]
            result[part] = (
                left if x < (_centre(skin) if skin is not None and skin.any() else (whole - 1) / 2) else right
            )
    return result


def _centre(mask_HW: np.ndarray) -> float:
    """Column of the centroid."""
    counts = mask_HW.sum(0)
    return float((counts * np.arange(len(counts))).sum() / counts.sum())


def _read_mask(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """True where any colour is not zero; None without the file."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            width, height = image.size
            # Judged from the header: nothing large is decoded that could not belong to the picture.
            if width > shape[1] or width * shape[0] != height * shape[1]:
                raise DataError(
                    f"{path}: the mask is {width}x{height}, which is no smaller copy of its {_size(shape)} picture; "
                    "copy both from the data set"
                )
            if image.mode in ("P", "PA", "LA", "RGBA"):  # the colours, without what a palette or opacity says
                values = np.asarray(image.convert("RGB"))
            else:
                values = np.asarray(image)
    except FileNotFoundError:
        return None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: the mask is damaged, or no PNG ({error}); copy it from the data set") from None
    return np.count_nonzero(np.atleast_3d(values), axis=-1) > 0


def _resized(labels_HW: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The nearest label at each pixel centre."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp) for new, old in zip(shape, labels_HW.shape, strict=True)
    )
    return np.ascontiguousarray(labels_HW[rows][:, columns])


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
