"""What a parsing network sees of a photograph, and where its answer goes: pack's squares, in whole pixels.

The network looks at two squares, each resized to its picture size: the face square, which is what training shows it, and
the margin square, which is all that packing keeps. Inside the face square the first answer counts, around it the second.
Measured on 100 drawn faces over the margin square (a narrow M_s at 64x64; Dice of the nine scored classes / background /
hair): the face square alone .858 / .988 / .902 (hair around it is lost), the margin square alone .731 / .991 / .933, both
.858 / .994 / .958; four shifted face squares .313 / .976 / .844, with the centre averaged in .469 / .986 / .907, with the
centre on top .858 / .993 / .950 (and five passes instead of two): the network knows where in its picture a mouth belongs.
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
# Factors of the face square, in the order in which answers are laid over each other.
VIEW_SCALES: dict[Views, tuple[float, ...]] = {"both": (MARGIN, 1.0), "face": (1.0,), "margin": (MARGIN,)}

Window = tuple[int, int, int]  # left, top, side, in whole pixels of the photograph


@dataclass(frozen=True)
class FaceViews:
    """One face ready for the network: (V, H, W, 3) uint8 views, and the photograph's (height, width) and windows."""

    views_VHW3: np.ndarray
    shape: tuple[int, int]
    windows: tuple[Window, ...]


def crop_views(sample: Sample, views: Views, size: tuple[int, int]) -> FaceViews:
    """The views of a sample's face, resized to `size` (height, width). Raises UnusablePicture."""
    if sample.landmarks is None:
        raise DataError(f"{sample.path}: has no landmarks, which say where the face is")
    pixels = read_picture(sample.path).pixels_HW3
    windows = tuple(pixel_box(square_from_landmarks(sample.landmarks).scaled(f)) for f in VIEW_SCALES[views])
    return FaceViews(np.stack([_view(pixels, w, size) for w in windows]), pixels.shape[:2], windows)


def _view(pixels_HW3: np.ndarray, window: Window, size: tuple[int, int]) -> np.ndarray:
    left, top, side = window
    middle = (side - 1) / 2
    square = crop_square(pixels_HW3, Square(left + middle, top + middle, side), max(size))
    if size[0] == size[1]:
        return square
    return cv2.resize(square, size[::-1], interpolation=cv2.INTER_AREA)


def compose_labels(scores_VChw: np.ndarray, shape: tuple[int, int], windows: Sequence[Window]) -> np.ndarray:
    """(height, width) uint8 label map of a photograph: in each window the largest score at each of its pixels, else 0.

    Scores, not labels, are resized, so that borders between classes are smooth. What lies outside the picture is dropped.
    """
    labels = np.zeros(shape, np.uint8)
    for scores_Chw, (left, top, side) in zip(scores_VChw, windows, strict=True):
        rows = slice(max(0, top), min(shape[0], top + side))
        columns = slice(max(0, left), min(shape[1], left + side))
        square = _largest(scores_Chw, side)
        labels[rows, columns] = square[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return labels


def _largest(scores_Chw: np.ndarray, side: int) -> np.ndarray:
    """(side, side) uint8 arg-max of the resized scores; a class at a time, since a photograph may be large."""
    best, labels = None, np.zeros((side, side), np.uint8)
    for number, score in enumerate(scores_Chw):
        resized = cv2.resize(np.ascontiguousarray(score), (side, side), interpolation=cv2.INTER_LINEAR)
        if best is None:
            best = resized
            continue
        np.copyto(labels, number, where=resized > best)
        np.maximum(best, resized, out=best)
    return labels
