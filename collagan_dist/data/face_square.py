"""The square of a picture that a sample is about, as plain arithmetic (decisions of section 4.1: no alignment).

All coordinates are pixels (x, y) with integers at pixel centres, so a picture of width W covers [-0.5, W - 0.5].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from collagan_dist.types import CLASSES, FACE_SQUARE, LABEL_CHIN, LABEL_SQUARE, MARGIN

Points = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Square:
    """Centre and side, in pixels."""

    x: float
    y: float
    side: float

    def scaled(self, factor: float) -> Square:
        return Square(self.x, self.y, self.side * factor)


def square_from_landmarks(landmarks: Points) -> Square:
    """Centred on the bounding box of the landmarks, FACE_SQUARE times its larger extent."""
    xs, ys = [p[0] for p in landmarks], [p[1] for p in landmarks]
    extent = max(max(xs) - min(xs), max(ys) - min(ys))
    return Square((min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, FACE_SQUARE * extent)


def square_from_label_map(labels_HW: np.ndarray) -> Square | None:
    """The same from a label map: LABEL_SQUARE times the width of its face, above the chin. None where it has no face."""
    face = (labels_HW > 0) & (labels_HW < CLASSES.index("hair"))
    columns, rows = np.flatnonzero(face.any(0)), np.flatnonzero(face.any(1))
    if not len(columns):
        return None
    width = int(columns[-1] - columns[0]) + 1
    return Square(float(columns[0] + columns[-1]) / 2, float(rows[-1]) - LABEL_CHIN * width, LABEL_SQUARE * width)


def square_from_size(width: int, height: int) -> Square:
    """The face square of a picture of which nothing is known: its margin is all that the picture holds in the middle.

    It is also that of a crop, which packing put in the middle of its margin.
    """
    return Square((width - 1) / 2, (height - 1) / 2, min(width, height) / MARGIN)


def stored_square(landmarks: Points | None, square: Sequence[float] | None, width: int, height: int) -> Square:
    """The face square of a stored picture: of its landmarks, else as packing noted it (centre and side)."""
    if landmarks is not None:
        return square_from_landmarks(landmarks)
    return Square(*square) if square is not None else square_from_size(width, height)


def pixel_box(square: Square) -> tuple[int, int, int]:
    """(left, top, side) of the square rounded to whole pixels; it may reach over the picture's border."""
    side = max(1, round(square.side))
    return round(square.x - (side - 1) / 2), round(square.y - (side - 1) / 2), side


def snap_to_pixels(square: Square) -> Square:
    """The square whose margin is the whole pixels that `crop` keeps, so that both ways of storing show the same view."""
    left, top, side = pixel_box(square.scaled(MARGIN))
    return Square(left + (side - 1) / 2, top + (side - 1) / 2, side / MARGIN)


def points_to_crop(points: Points, left: int, top: int, side: int, size: int) -> list[list[float]]:
    """Points of the picture in pixels of the crop (left, top, side) resized to `size`."""
    scale = size / side
    return [[round((x - left + 0.5) * scale - 0.5, 3), round((y - top + 0.5) * scale - 0.5, 3)] for x, y in points]
