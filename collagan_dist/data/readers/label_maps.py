"""Read the label map of a picture, from one PNG or from one mask per part of the face.

A wrong label map is an error of the data set: it stops packing, while a wrong picture is quarantined.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from collagan_dist.data.readers.part_masks import compose_label_map
from collagan_dist.data.readers.picture import open_png
from collagan_dist.errors import DataError
from collagan_dist.types import CLASSES, File, PartMasks


def read_label_map(labels: File | PartMasks, shape: tuple[int, int]) -> np.ndarray:
    """Return the (H, W) uint8 label map of a picture of that shape. Raises DataError."""
    return compose_label_map(labels.prefix, shape) if isinstance(labels, PartMasks) else _read_png(labels, shape)


def _read_png(file: File, shape: tuple[int, int]) -> np.ndarray:
    try:
        with open_png(file, "the label map", "make it again") as image:
            # Before a pixel is decoded: a map of another size may be a decompression bomb.
            _check_header(file, image, shape)
            labels = np.asarray(image)
    except FileNotFoundError:
        raise DataError(
            f"{file}: the label map is missing; make it (`collagan label`), or leave `labels` out of the recipe"
        ) from None
    wrong = labels >= len(CLASSES)
    if wrong.any():
        raise DataError(
            f"{file}: label {int(labels.max())} is outside 0..{len(CLASSES) - 1} ({int(wrong.sum())} pixels); "
            "map the labels to the classes of shards/README.md"
        )
    return labels


def _check_header(file: File, image: Image.Image, shape: tuple[int, int]) -> None:
    # Label maps are often saved with a palette to look at; the palette's indices are the labels.
    if image.mode not in ("L", "P"):
        raise DataError(f"{file}: a label map must be an 8-bit single-channel PNG, this is {image.mode}; convert it")
    if image.size != (shape[1], shape[0]):
        raise DataError(
            f"{file}: the label map is {image.width}x{image.height}, its picture {shape[1]}x{shape[0]}; make it in the picture's size"
        )
