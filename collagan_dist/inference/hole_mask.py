"""A photograph's hole: where it lies, and at the model's size every pixel that saw any of it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from collagan_dist.data.readers.picture import resize_nearest
from collagan_dist.inference.face_views import Window, crop_window

# Cubic interpolation, which enlarges windows, reads two pixels to each side.
_CUBIC_REACH = 2

Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two are one beyond


@dataclass(frozen=True)
class HolePart:
    """A hole in a photograph: its box (left, top, right, bottom) there, and its pixels inside the box."""

    box: Box
    hole_HW: np.ndarray


def cover_hole(hole_HW: np.ndarray | None, window: Window, size: int) -> np.ndarray:
    """Return the (size, size) bool hole of a window: true wherever what was painted into the hole could be seen.

    So whatever a photograph has in its hole (paint, a hat) reaches no pixel that the model takes for the face.
    """
    if hole_HW is None:
        return np.zeros((size, size), bool)
    side = window[2]
    # At its own size; where the window leaves the picture, the hole is reflected as the pixels are.
    hole = crop_window(hole_HW.view(np.uint8), window, side, nearest=True)
    if side == size:
        return hole > 0
    if side < size:
        reach = 2 * _CUBIC_REACH + 1
        return resize_nearest(cv2.dilate(hole, np.ones((reach, reach), np.uint8)), (size, size)) > 0
    return shrink_hole(hole > 0, (size, size))


def shrink_hole(hole_HW: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the hole at a smaller (height, width): true where a pixel covers any of it, also in part."""
    return _any_rows(_any_rows(hole_HW, shape[0]).T, shape[1]).T.copy()


def hole_box(hole_HW: np.ndarray | None) -> Box | None:
    """Return the smallest box around a hole, None without one."""
    if hole_HW is None:
        return None
    columns, rows = np.flatnonzero(hole_HW.any(0)), np.flatnonzero(hole_HW.any(1))
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if len(columns) else None


def trim_hole(hole_HW: np.ndarray, left: int = 0, top: int = 0) -> HolePart | None:
    """Return a hole that lies at `left`, `top` of a photograph without the rows and columns around it; None if it is empty."""
    if (box := hole_box(hole_HW)) is None:
        return None
    inside = hole_HW[box[1] : box[3], box[0] : box[2]]
    return HolePart((left + box[0], top + box[1], left + box[2], top + box[3]), inside)


def _any_rows(hole_HW: np.ndarray, size: int) -> np.ndarray:
    """Return (size, W): each row says where any of the rows that it covers, also in part, is true."""
    side = len(hole_HW)
    row = np.arange(side)
    # A row covers one or two of the fewer rows: those of its upper and of its lower edge.
    edges = (row * size // side, ((row + 1) * size - 1) // side)
    upper, lower = (np.searchsorted(edge, np.arange(size)) for edge in edges)
    return np.logical_or.reduceat(hole_HW, upper, axis=0) | np.logical_or.reduceat(hole_HW, lower, axis=0)
