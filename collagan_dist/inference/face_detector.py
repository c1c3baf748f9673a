"""Faces in photographs by a cascade of local binary patterns, whose weights come with scikit-image (extra `faces`)."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from collagan_dist.data.face_square import Square
from collagan_dist.data.loading.holes import continue_smoothly
from collagan_dist.inference.hole_mask import shrink_hole
from collagan_dist.inference.hole_source import Photograph

# A photograph is searched with so many pixels along its longer side, for faces from a tenth of that on.
_SEARCH_PIXELS, _MIN_PIXELS = 256, 24
# Factor between sizes of the search, its step, and how many windows must agree on a face.
_SCALE_STEP, _STEP, _MIN_NEIGHBOURS = 1.2, 1.0, 4
# The face square in sides of a detected box: its side, and how far it lies below the box. Medians over 102 photographs with
# landmarks. Fitted on one half of them, the squares of the other half overlap the true ones by 0.89 and 0.88 (0.88 and 0.90 in their own).
_SIDE, _DOWN = 1.368, 0.0888
# Boxes are of one face where they share this part of their joint area, or one has its middle inside the other.
_SAME_OVERLAP = 0.2
# Of the largest face's side: what is smaller beside it is more often a pattern, as a badge.
_MIN_RELATIVE = 0.5


def is_available() -> bool:
    """Return whether the library that has the detector is installed."""
    return importlib.util.find_spec("skimage") is not None


def detect_faces(photo: Photograph) -> list[Square]:
    """Return the face squares that are seen in a photograph, the largest first; a hole is filled with its surroundings."""
    grey_HW, scale = _search_picture(photo)
    largest = min(grey_HW.shape)
    if largest < _MIN_PIXELS:
        return []
    found = _cascade().detect_multi_scale(
        grey_HW, _SCALE_STEP, _STEP, (_MIN_PIXELS, _MIN_PIXELS), (largest, largest), _MIN_NEIGHBOURS
    )
    squares = [_face_square(box["c"], box["r"], box["width"], scale) for box in found]
    return _merge(squares)


@lru_cache(maxsize=1)
def _cascade() -> Any:
    import skimage.data
    from skimage.feature import Cascade

    return Cascade(skimage.data.lbp_frontal_face_cascade_filename())


def _search_picture(photo: Photograph) -> tuple[np.ndarray, float]:
    """Return a small grey picture, (h, w) uint8, and how many of the photograph's pixels one of its has."""
    height, width = photo.shape
    scale = max(1.0, max(height, width) / _SEARCH_PIXELS)
    shape = max(1, round(height / scale)), max(1, round(width / scale))
    # Made small first: grey values of all of a large photograph would take another 64 MB.
    small = cv2.resize(photo.pixels_HW3, shape[::-1], interpolation=cv2.INTER_AREA)
    grey_HW = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    if photo.hole_HW is not None and photo.hole_HW.any():
        grey_HW = _fill(grey_HW, shrink_hole(photo.hole_HW, shape))
    return grey_HW, scale


def _fill(grey_HW: np.ndarray, hole_HW: np.ndarray) -> np.ndarray:
    # What is painted there has edges that no face has. Halving needs a square, whose rest is unknown, too.
    add = (0, max(grey_HW.shape) - grey_HW.shape[1], 0, max(grey_HW.shape) - grey_HW.shape[0])
    image = F.pad(torch.from_numpy(grey_HW).float(), add)[None, None]
    unknown = F.pad(torch.from_numpy(hole_HW), add, value=True)[None, None]
    filled = continue_smoothly(image, unknown)[0, 0, : grey_HW.shape[0], : grey_HW.shape[1]]
    return filled.round().clamp(0, 255).byte().contiguous().numpy()


def _face_square(left: int, top: int, side: int, scale: float) -> Square:
    middle = side / 2
    # A pixel's centre is half a pixel from its edge, and resizing scales distances from the edge.
    return Square((left + middle) * scale - 0.5, (top + middle + _DOWN * side) * scale - 0.5, _SIDE * side * scale)


def _merge(squares: list[Square]) -> list[Square]:
    """Return one square a face: the mean of those that mostly cover its largest one."""
    faces: list[list[Square]] = []
    for square in sorted(squares, key=lambda s: -s.side):
        known = next((face for face in faces if _is_same(face[0], square)), None)
        if known is None:
            faces.append([square])
        elif overlap(known[0], square) > 2 * _SAME_OVERLAP:
            known.append(square)
    found = sorted((Square(*np.mean(face, axis=0).tolist()) for face in faces), key=lambda s: -s.side)
    return [square for square in found if square.side >= _MIN_RELATIVE * found[0].side]


def _is_same(large: Square, small: Square) -> bool:
    inside = max(abs(large.x - small.x), abs(large.y - small.y)) < large.side / 2
    return inside or overlap(large, small) > _SAME_OVERLAP


def overlap(one: Square, other: Square) -> float:
    """Return the area that two squares share, as a part of what they cover together."""
    sides = [
        max(0.0, min(a + one.side / 2, b + other.side / 2) - max(a - one.side / 2, b - other.side / 2))
        for a, b in ((one.x, other.x), (one.y, other.y))
    ]
    shared = sides[0] * sides[1]
    return shared / (one.side**2 + other.side**2 - shared)
