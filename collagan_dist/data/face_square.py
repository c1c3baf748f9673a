"""The face square: which square part of a photograph a sample shows, computed from landmarks, label map or size.

The paper crops faces by their landmarks and does not align them (section 4.1). All coordinates are pixels (x, y) with
integers at pixel centres, so a picture of width W covers [-0.5, W - 0.5].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from collagan_dist.types import CLASSES, FACE_SQUARE, LABEL_CHIN, LABEL_SQUARE, MARGIN

Points = Sequence[Sequence[float]]
# A face square lies within this many times the longer side of its picture, around the middle. Landmarks inside a picture, as
# packing wants them, make one within 4.2 times.
_REACH = 5.0


class Square(NamedTuple):
    """A square by its centre and its side, in pixels; it may reach beyond the picture."""

    x: float
    y: float
    side: float

    def scaled(self, factor: float) -> Square:
        return Square(self.x, self.y, self.side * factor)


def square_from_landmarks(landmarks: Points) -> Square:
    """Return the square around the centre of the landmarks' bounding box, FACE_SQUARE times its larger extent."""
    xs, ys = zip(*landmarks, strict=True)
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    return Square((left + right) / 2, (top + bottom) / 2, FACE_SQUARE * max(right - left, bottom - top))


def square_from_label_map(labels_HW: np.ndarray) -> Square | None:
    """Return the face square of a label map, None where it has no face.

    Its side is LABEL_SQUARE times the width of the face, its centre LABEL_CHIN widths above the chin.
    """
    # Without the hair: its upper edge says nothing about the size of the face (see LABEL_SQUARE in types.py).
    face = (labels_HW > 0) & (labels_HW < CLASSES.index("hair"))
    columns, rows = np.flatnonzero(face.any(0)), np.flatnonzero(face.any(1))
    if not len(columns):
        return None
    width = int(columns[-1] - columns[0]) + 1
    return Square(float(columns[0] + columns[-1]) / 2, float(rows[-1]) - LABEL_CHIN * width, LABEL_SQUARE * width)


def square_from_size(width: int, height: int) -> Square:
    """Return the face square of a picture without annotation: its margin square is the largest one in the middle."""
    # This is also the face square of a stored crop, because packing puts the face into the middle of its margin.
    return Square((width - 1) / 2, (height - 1) / 2, min(width, height) / MARGIN)


def stored_square(landmarks: Points | None, square: Sequence[float] | None, width: int, height: int) -> Square:
    """Return the face square of a picture in a shard: from its landmarks, else `square` as packing stored it."""
    # Landmarks first, as packing did: only then do crop and original show the same view.
    if landmarks is not None:
        return square_from_landmarks(landmarks)
    return Square(*square) if square is not None else square_from_size(width, height)


def square_problem(square: Square, width: int, height: int) -> str | None:
    """Return what is wrong with the face square of a picture, None if a view can be cut from it."""
    x, y, half = square.x - (width - 1) / 2, square.y - (height - 1) / 2, square.side / 2
    if square.side < 1:
        return f"its face square has a side of {square.side:.3g} pixels"
    if max(abs(x), abs(y)) + half > _REACH / 2 * max(width, height):
        return f"its face square lies outside of {_REACH:g} times the picture's longer side"
    # A view needs a pixel: the margin square overlaps the picture by one at least.
    if max(abs(x) - width / 2, abs(y) - height / 2) + 1 > half * MARGIN:
        return "its face square lies beside the picture"
    return None


def pixel_box(square: Square) -> tuple[int, int, int]:
    """Return (left, top, side) of the square rounded to pixels; it may reach beyond the picture."""
    side = max(1, round(square.side))
    return round(square.x - (side - 1) / 2), round(square.y - (side - 1) / 2), side


def snap_to_pixels(square: Square) -> Square:
    """Return the face square whose margin square is exactly the pixels that `store: crop` keeps."""
    # So that `store: original` shows training the same view as `store: crop`.
    left, top, side = pixel_box(square.scaled(MARGIN))
    return Square(left + (side - 1) / 2, top + (side - 1) / 2, side / MARGIN)


def points_to_crop(points: Points, left: int, top: int, side: int, size: int) -> list[list[float]]:
    """Map points of a picture into its crop (left, top, side), resized to `size` pixels."""
    scale = size / side
    # A pixel's centre is half a pixel from its edge, and resizing scales distances from the edge.
    return [[round((x - left + 0.5) * scale - 0.5, 3), round((y - top + 0.5) * scale - 0.5, 3)] for x, y in points]
