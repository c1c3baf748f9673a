"""The projection of a head onto the picture, and the canvas on which everything is painted.

The canvas is painted at twice the picture's size and averaged down, which smooths the edges. Points are given in
picture pixels (x, y), integers at pixel centres. The label map is painted with the same polygons on a grid whose every
second sample is exactly a pixel centre, so it needs no smoothing and has no bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from collagan_dist.faces.traits import Pose, Rgb
from collagan_dist.types import FACE_SQUARE, MARGIN

WIDTH: Final = 360
HEIGHT: Final = 440
# The side of the square around the landmarks that must lie within the picture, in extents of the landmarks.
SQUARE: Final = FACE_SQUARE * MARGIN
PIVOT: Final = np.array([0.0, 0.3, 0.0])
_BITS: Final = 4
_ONE: Final = 1 << _BITS


@dataclass(frozen=True)
class Projection:
    """Face units to pixels: `matrix` (2, 3) and `shift` (2,). `scale` is pixels per unit."""

    matrix: np.ndarray
    shift: np.ndarray
    scale: float
    yaw: float

    def points(self, xyz_N3: np.ndarray) -> np.ndarray:
        """(N, 3) face units to (N, 2) pixels."""
        return xyz_N3 @ self.matrix.T + self.shift

    def front(self, xy_N2: np.ndarray, lift: float | np.ndarray = 0.0) -> np.ndarray:
        """Points on the face's surface, raised by `lift`, in pixels."""
        return self.points(on_face(xy_N2, lift))

    def outline(self, xy_N2: np.ndarray, depth: float = 0.15) -> np.ndarray:
        """Points of a silhouette in pixels: turning the head moves it a little and does not narrow it."""
        xyz = np.empty((len(xy_N2), 3))
        xyz[:, 0] = xy_N2[:, 0] / np.cos(self.yaw)
        xyz[:, 1] = xy_N2[:, 1]
        # The chin stands out in front, so that it follows the turn.
        xyz[:, 2] = depth + 0.32 * np.clip(xy_N2[:, 1] - 0.5, 0.0, 1.4)
        return self.points(xyz)


def on_face(xy_N2: np.ndarray, lift: float | np.ndarray = 0.0) -> np.ndarray:
    """(N, 2) to (N, 3): the depth of the face's surface at x, y."""
    x, y = xy_N2[:, 0], xy_N2[:, 1]
    return np.column_stack([x, y, 1.0 + lift - 0.5 * x * x - 0.12 * (y - 0.4) ** 2])


def project(pose: Pose, landmarks_53: np.ndarray) -> Projection:
    """The projection that gives the five landmarks their extent and keeps the square around them in the picture."""
    cos_y, sin_y = np.cos(pose.yaw), np.sin(pose.yaw)
    cos_p, sin_p = np.cos(pose.pitch), np.sin(pose.pitch)
    turn = np.array([[cos_y, 0.0, sin_y], [0.0, 1.0, 0.0], [-sin_y, 0.0, cos_y]])
    nod = np.array([[1.0, 0.0, 0.0], [0.0, cos_p, -sin_p], [0.0, sin_p, cos_p]])
    roll = np.array([[np.cos(pose.roll), -np.sin(pose.roll)], [np.sin(pose.roll), np.cos(pose.roll)]])
    unit = roll @ (nod @ turn)[:2]
    flat = (landmarks_53 - PIVOT) @ unit.T
    low, high = flat.min(0), flat.max(0)
    scale = pose.extent / float((high - low).max())
    # Stored landmarks are rounded: half a pixel at each end enlarges the extent and moves the centre.
    half = SQUARE / 2 * (pose.extent + 1.0) + 1.0
    room = np.array([WIDTH - 1, HEIGHT - 1]) - 2 * half
    centre = half + room * np.array(pose.place)
    matrix = unit * scale
    return Projection(matrix, centre - scale * (low + high) / 2 - matrix @ PIVOT, scale, pose.yaw)


def _grid(points_N2: np.ndarray, shift: float) -> np.ndarray:
    return np.rint((points_N2 * 2 + shift) * _ONE).astype(np.int32)


Box = tuple[int, int, int, int]


class Canvas:
    """`image` (2 h, 2 w, 3) uint8 and `labels` (2 h, 2 w) uint8, at twice the size of the picture or of a part of it.

    A part (`cut`) has no labels; it is painted with the same coordinates and goes back through a polygon by `paste`.
    """

    def __init__(self, image: np.ndarray, labels: np.ndarray | None, corner: tuple[int, int] = (0, 0)) -> None:
        self.image, self.labels = image, labels
        self._corner = np.array(corner) / 2

    @classmethod
    def primed(cls, backdrop: np.ndarray) -> Canvas:
        """A whole canvas behind which a small picture of the backdrop is enlarged."""
        image = cv2.resize(backdrop, (2 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_LINEAR)
        return cls(image, np.zeros((2 * HEIGHT, 2 * WIDTH), np.uint8))

    def cut(self, box: Box) -> Canvas:
        x0, y0, x1, y1 = box
        return Canvas(self.image[y0:y1, x0:x1].copy(), None, (x0, y0))

    def fill(self, points_N2: np.ndarray, rgb: Rgb | None, label: int | None = None) -> None:
        """One polygon, in a flat colour, or only its label."""
        if rgb is not None:
            cv2.fillPoly(self.image, [_grid(points_N2 - self._corner, 0.5)], rgb, shift=_BITS)
        if label is not None and self.labels is not None:
            cv2.fillPoly(self.labels, [_grid(points_N2, 0.0)], label, shift=_BITS)

    def stroke(
        self, lines: list[np.ndarray], rgb: Rgb, width: float, label: int | None = None, closed: bool = False
    ) -> None:
        """Open or closed lines of one colour; `width` in pixels of the picture, in steps of a half."""
        thick = max(1, round(2 * width))
        grids = [_grid(line - self._corner, 0.5) for line in lines]
        cv2.polylines(self.image, grids, closed, rgb, thick, shift=_BITS)
        if label is not None and self.labels is not None:
            cv2.polylines(self.labels, [_grid(line, 0.0) for line in lines], closed, label, thick, shift=_BITS)

    def paste(self, patch: np.ndarray, box: Box, points_N2: np.ndarray, label: int | None = None) -> None:
        """Copies a patch the size of `box` through the polygon."""
        x0, y0, x1, y1 = box
        if x1 > x0 and y1 > y0:
            mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
            cv2.fillPoly(mask, [_grid(points_N2 - np.array([x0, y0]) / 2, 0.5)], 255, shift=_BITS)
            cv2.copyTo(patch, mask, self.image[y0:y1, x0:x1])
        self.fill(points_N2, None, label)

    def glaze(self, points_N2: np.ndarray, rgb: Rgb, share: float) -> None:
        """A transparent colour over a polygon of a whole canvas."""
        box = box_around(points_N2)
        x0, y0, x1, y1 = box
        if x1 > x0 and y1 > y0:
            under = self.image[y0:y1, x0:x1]
            veil = np.full_like(under, np.array(rgb, np.uint8))
            self.paste(cv2.addWeighted(under, 1 - share, veil, share, 0), box, points_N2)

    def finished(self) -> tuple[np.ndarray, np.ndarray]:
        """Picture (H, W, 3) and labels (H, W) of a whole canvas."""
        assert self.labels is not None, "a cut-out has no labels"
        picture = cv2.resize(self.image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        return picture, np.ascontiguousarray(self.labels[::2, ::2])


def box_around(points_N2: np.ndarray, pad: int = 2) -> Box:
    """Columns and rows (x0, y0, x1, y1) of the canvas around some points; empty boxes have x1 <= x0 or y1 <= y0."""
    low = np.floor(points_N2.min(0) * 2).astype(int) - pad
    high = np.ceil(points_N2.max(0) * 2).astype(int) + pad
    x0, y0 = max(0, int(low[0])), max(0, int(low[1]))
    return x0, y0, min(2 * WIDTH, int(high[0])), min(2 * HEIGHT, int(high[1]))


class SoftField:
    """A small colour field over a box of the canvas, into which soft lights and shadows are painted.

    Its pixel is `step` canvas pixels. `add` paints additive RGB factors (1 is the base colour) which `colours` blurs
    by `sigma` field pixels, multiplies with the base colour, and enlarges.
    """

    def __init__(self, box: Box, step: int = 4) -> None:
        self.box, self.step = box, step
        self.size = (max(1, -(-(box[2] - box[0]) // step)), max(1, -(-(box[3] - box[1]) // step)))
        self.factor = np.ones((self.size[1], self.size[0], 3), np.float32)

    def layer(self) -> np.ndarray:
        return np.zeros_like(self.factor)

    def _at(self, points_N2: np.ndarray) -> np.ndarray:
        corner = np.array([self.box[0], self.box[1]])
        return np.rint(((points_N2 * 2 + 0.5 - corner) / self.step - 0.5 + 0.5 / self.step) * _ONE).astype(np.int32)

    def fill(self, layer: np.ndarray, points_N2: np.ndarray, rgb: Rgb) -> None:
        cv2.fillPoly(layer, [self._at(points_N2)], rgb, shift=_BITS)

    def stroke(self, layer: np.ndarray, lines: list[np.ndarray], rgb: Rgb, thick: int) -> None:
        cv2.polylines(layer, [self._at(p) for p in lines], False, rgb, thick, shift=_BITS)

    def add(self, layer: np.ndarray, sigma: float) -> None:
        self.factor += cv2.GaussianBlur(layer, (0, 0), sigma)

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Picture coordinates of the field's pixels: x (1, w) and y (h, 1)."""
        x = ((np.arange(self.size[0], dtype=np.float32) + 0.5) * self.step + self.box[0] - 1.0) / 2
        y = ((np.arange(self.size[1], dtype=np.float32) + 0.5) * self.step + self.box[1] - 1.0) / 2
        return x[None, :], y[:, None]

    def colours(self, rgb: Rgb) -> np.ndarray:
        """The field in a base colour: uint8 of the box's size."""
        field = cv2.convertScaleAbs(np.maximum(self.factor, 0) * np.array(rgb, np.float32))
        wide = cv2.resize(field, (self.size[0] * self.step, self.size[1] * self.step), interpolation=cv2.INTER_LINEAR)
        return wide[: self.box[3] - self.box[1], : self.box[2] - self.box[0]]
