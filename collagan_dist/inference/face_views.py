"""Views of a face for a parsing network, and the label map of the photograph from its scores for them.

A network sees two squares of the photograph, each resized to its input size. The face square is what it was trained on.
The margin square around it is all that packing stores. Scores of the face square take precedence inside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from collagan_dist.data.face_square import Square, pixel_box, square_from_landmarks
from collagan_dist.data.readers.picture import crop_square, read_picture
from collagan_dist.errors import DataError
from collagan_dist.types import MARGIN, Sample

Views = Literal["both", "face", "margin"]
# Measured over the margin square of 100 drawn faces, with a narrow M_s at 64x64 (Dice of the nine scored classes, of
# background, of hair):
# - face square alone: .858, .988, .902; hair outside of it is lost.
# - margin square alone: .731, .991, .933.
# - both, the face square on top (used): .858, .994, .958.
# - four shifted face squares: .313, .976, .844.
# - four shifted and the centre, averaged: .469, .986, .907.
# - four shifted, the centre on top: .858, .993, .950; it takes five passes instead of two.
# Shifted squares fail because the network has learned where in its input a mouth belongs.
#
# Squares as multiples of the face square, in the order in which their labels are painted; the last wins.
VIEW_SCALES: dict[Views, tuple[float, ...]] = {"both": (MARGIN, 1.0), "face": (1.0,), "margin": (MARGIN,)}

_STRIP_ROWS = 256  # of a label map at a time

Window = tuple[int, int, int]  # left, top, side, in whole pixels of the photograph


@dataclass(frozen=True)
class FaceViews:
    """(V, H, W, 3) uint8 views of one face, the photograph's (height, width), and the views' windows in it."""

    views_VHW3: np.ndarray
    shape: tuple[int, int]
    windows: tuple[Window, ...]


def crop_views(sample: Sample, views: Views, size: tuple[int, int]) -> FaceViews:
    """Cut the views of a sample's face and resize them to `size` (height, width). Raises DataError, UnusablePicture."""
    if sample.landmarks is None:
        raise DataError(f"{sample.path}: has no landmarks, which say where the face is")
    pixels = read_picture(sample.path).pixels_HW3
    windows = tuple(pixel_box(square_from_landmarks(sample.landmarks).scaled(f)) for f in VIEW_SCALES[views])
    return FaceViews(np.stack([_view(pixels, w, size) for w in windows]), pixels.shape[:2], windows)


def crop_window(array: np.ndarray, window: Window, size: int, nearest: bool = False) -> np.ndarray:
    """Crop the window of a picture or a map, and resize it to (size, size), as `crop_square` does."""
    left, top, side = window
    middle = (side - 1) / 2
    return crop_square(array, Square(left + middle, top + middle, side), size, nearest)


def _view(pixels_HW3: np.ndarray, window: Window, size: tuple[int, int]) -> np.ndarray:
    square = crop_window(pixels_HW3, window, max(size))
    if size[0] == size[1]:
        return square
    # An ONNX network may take pictures that are not square; cv2 takes (width, height).
    return cv2.resize(square, size[::-1], interpolation=cv2.INTER_AREA)


def compose_labels(scores_VChw: np.ndarray, shape: tuple[int, int], windows: Sequence[Window]) -> np.ndarray:
    """Return the (height, width) uint8 label map of a photograph: in each window the class of the largest score, else 0.

    Later windows overwrite earlier ones. Parts of windows outside the photograph are dropped.
    """
    labels = np.zeros(shape, np.uint8)
    for scores_Chw, (left, top, side) in zip(scores_VChw, windows, strict=True):
        rows = slice(max(0, top), min(shape[0], top + side))
        columns = slice(max(0, left), min(shape[1], left + side))
        square = _resized_argmax(scores_Chw, side)
        labels[rows, columns] = square[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return labels


def _resized_argmax(scores_Chw: np.ndarray, side: int) -> np.ndarray:
    """Return the (side, side) uint8 arg-max over classes of scores that are resized to (side, side)."""
    # Scores are resized, not labels: borders between classes become smooth. In strips and one class at a time, because all 11 at
    # the size of a large photograph would take gigabytes.
    wide_Chw = [
        cv2.resize(s, (side, s.shape[0]), interpolation=cv2.INTER_LINEAR) for s in scores_Chw.astype(np.float32)
    ]
    height = scores_Chw.shape[1]
    labels = np.zeros((side, side), np.uint8)
    for first in range(0, side, _STRIP_ROWS):
        row = np.arange(first, min(first + _STRIP_ROWS, side))
        at = np.clip((row + 0.5) * height / side - 0.5, 0, height - 1)
        above = np.minimum(at.astype(np.intp), max(height - 2, 0))
        below = np.minimum(above + 1, height - 1)
        share = (at - above).astype(np.float32)[:, None]
        strip, best = labels[row[0] : row[-1] + 1], None
        for number, wide in enumerate(wide_Chw):
            resized = wide[above] * (1 - share) + wide[below] * share
            if best is None:
                best = resized
                continue
            np.copyto(strip, number, where=resized > best)
            np.maximum(best, resized, out=best)
    return labels
