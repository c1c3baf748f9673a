"""The projection of a head into the picture, and the canvas that picture and label map are painted on.

Points are in pixels of the picture (x, y), integers at pixel centres. The canvas has twice the picture's size and is
averaged down at the end, which smooths edges. Labels are painted with the same polygons and subsampled.
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
# Side of the square around the landmarks that packing stores, in extents of the landmarks. It must lie inside the picture.
SQUARE_EXTENTS: Final = FACE_SQUARE * MARGIN
# The point that the head turns about, in face units: inside the head, a little below the eyes.
PIVOT: Final = np.array([0.0, 0.3, 0.0])
# cv2 takes polygons in whole numbers of 1/16 pixel.
_SUBPIXEL_BITS: Final = 4
_SUBPIXELS: Final = 1 << _SUBPIXEL_BITS


@dataclass(frozen=True)
class Projection:
    """Parallel projection of face units to pixels: `matrix` (2, 3) and `shift` (2,). `scale` is pixels per unit."""

    matrix: np.ndarray
    shift: np.ndarray
    scale: float
    yaw: float

    def points(self, xyz_N3: np.ndarray) -> np.ndarray:
        """Return the (N, 2) pixels of (N, 3) points in face units."""
        return xyz_N3 @ self.matrix.T + self.shift

    def front(self, xy_N2: np.ndarray, lift: float | np.ndarray = 0.0) -> np.ndarray:
        """Return the pixels of points on the face's surface, raised by `lift`."""
        return self.points(on_surface(xy_N2, lift))

    def outline(self, xy_N2: np.ndarray, depth: float = 0.15) -> np.ndarray:
        """Return the pixels of a silhouette. Turning the head moves it a little and does not make it narrower."""
        xyz = np.empty((len(xy_N2), 3))
        # A head is about as deep as it is wide, so the factor cos(yaw) of the projection is undone.
        xyz[:, 0] = xy_N2[:, 0] / np.cos(self.yaw)
        xyz[:, 1] = xy_N2[:, 1]
        # The chin is in front of the pivot, so it moves with the turn.
        xyz[:, 2] = depth + 0.32 * np.clip(xy_N2[:, 1] - 0.5, 0.0, 1.4)
        return self.points(xyz)


def on_surface(xy_N2: np.ndarray, lift: float | np.ndarray = 0.0) -> np.ndarray:
    """Return (N, 3): points (N, 2) with the depth of the face's surface there, a paraboloid."""
    x, y = xy_N2[:, 0], xy_N2[:, 1]
    return np.column_stack([x, y, 1.0 + lift - 0.5 * x * x - 0.12 * (y - 0.4) ** 2])


def fit_projection(pose: Pose, landmarks_53: np.ndarray) -> Projection:
    """Return the projection that gives the landmarks pose.extent and keeps the stored square around them in the picture."""
    cos_y, sin_y = np.cos(pose.yaw), np.sin(pose.yaw)
    cos_p, sin_p = np.cos(pose.pitch), np.sin(pose.pitch)
    turn = np.array([[cos_y, 0.0, sin_y], [0.0, 1.0, 0.0], [-sin_y, 0.0, cos_y]])
    nod = np.array([[1.0, 0.0, 0.0], [0.0, cos_p, -sin_p], [0.0, sin_p, cos_p]])
    roll = np.array([[np.cos(pose.roll), -np.sin(pose.roll)], [np.sin(pose.roll), np.cos(pose.roll)]])
    unit = roll @ (nod @ turn)[:2]
    flat = (landmarks_53 - PIVOT) @ unit.T
    low, high = flat.min(0), flat.max(0)
    scale = pose.extent / float((high - low).max())
    # Stored landmarks are rounded, which enlarges the extent by up to a pixel and moves the centre by up to half of one.
    half = SQUARE_EXTENTS / 2 * (pose.extent + 1.0) + 1.0
    room = np.array([WIDTH - 1, HEIGHT - 1]) - 2 * half
    centre = half + room * np.array(pose.place)
    # Parallel, not in perspective: the extent is then linear in the scale, and landmarks are exact.
    matrix = unit * scale
    return Projection(matrix, centre - scale * (low + high) / 2 - matrix @ PIVOT, scale, pose.yaw)


def _to_subpixels(points_N2: np.ndarray, shift: float) -> np.ndarray:
    # Pixel x of the picture covers pixels 2x and 2x+1 of the canvas, so its centre is at 2x + 0.5.
    return np.rint((points_N2 * 2 + shift) * _SUBPIXELS).astype(np.int32)


Box = tuple[int, int, int, int]


class Canvas:
    """`image` (2 h, 2 w, 3) uint8 and `labels` (2 h, 2 w) uint8, at twice the size of the picture or of a part of it.

    A part (`crop`) has no labels. It is painted with the same coordinates, and `paste` copies it back through a polygon.
    """

    def __init__(self, image: np.ndarray, labels: np.ndarray | None, corner: tuple[int, int] = (0, 0)) -> None:
        self.image, self.labels = image, labels
        self._corner = np.array(corner) / 2

    @classmethod
    def on_backdrop(cls, backdrop: np.ndarray) -> Canvas:
        """Return a canvas of the picture's size with an enlarged backdrop."""
        image = cv2.resize(backdrop, (2 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_LINEAR)
        return cls(image, np.zeros((2 * HEIGHT, 2 * WIDTH), np.uint8))

    def crop(self, box: Box) -> Canvas:
        x0, y0, x1, y1 = box
        return Canvas(self.image[y0:y1, x0:x1].copy(), None, (x0, y0))

    def fill(self, points_N2: np.ndarray, rgb: Rgb | None, label: int | None = None) -> None:
        """Fill a polygon with a flat colour, a label, or both."""
        if rgb is not None:
            cv2.fillPoly(self.image, [_to_subpixels(points_N2 - self._corner, 0.5)], rgb, shift=_SUBPIXEL_BITS)
        # Labels without the 0.5: pixel centres are at even positions, which are the ones that subsampling takes.
        if label is not None and self.labels is not None:
            cv2.fillPoly(self.labels, [_to_subpixels(points_N2, 0.0)], label, shift=_SUBPIXEL_BITS)

    def stroke(
        self, lines: list[np.ndarray], rgb: Rgb, width: float, label: int | None = None, closed: bool = False
    ) -> None:
        """Draw open or closed lines of one colour; `width` is in pixels of the picture, rounded to a half."""
        thick = max(1, round(2 * width))
        grids = [_to_subpixels(line - self._corner, 0.5) for line in lines]
        cv2.polylines(self.image, grids, closed, rgb, thick, shift=_SUBPIXEL_BITS)
        if label is not None and self.labels is not None:
            grids = [_to_subpixels(line, 0.0) for line in lines]
            cv2.polylines(self.labels, grids, closed, label, thick, shift=_SUBPIXEL_BITS)

    def paste(self, patch: np.ndarray, box: Box, points_N2: np.ndarray, label: int | None = None) -> None:
        """Copy a patch of the size of `box` through the polygon."""
        x0, y0, x1, y1 = box
        if x1 > x0 and y1 > y0:
            mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
            cv2.fillPoly(mask, [_to_subpixels(points_N2 - np.array([x0, y0]) / 2, 0.5)], 255, shift=_SUBPIXEL_BITS)
            cv2.copyTo(patch, mask, self.image[y0:y1, x0:x1])
        self.fill(points_N2, None, label)

    def fill_transparent(self, points_N2: np.ndarray, rgb: Rgb, share: float) -> None:
        """Lay a transparent colour over a polygon; `share` is its opacity."""
        box = box_around(points_N2)
        x0, y0, x1, y1 = box
        if x1 > x0 and y1 > y0:
            under = self.image[y0:y1, x0:x1]
            veil = np.full_like(under, np.array(rgb, np.uint8))
            self.paste(cv2.addWeighted(under, 1 - share, veil, share, 0), box, points_N2)

    def downsampled(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the picture (H, W, 3) and its labels (H, W)."""
        assert self.labels is not None, "a crop has no labels"
        picture = cv2.resize(self.image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        # Classes cannot be averaged.
        return picture, np.ascontiguousarray(self.labels[::2, ::2])


def box_around(points_N2: np.ndarray, pad: int = 2) -> Box:
    """Return the box (x0, y0, x1, y1) of the canvas around points; an empty one has x1 <= x0 or y1 <= y0."""
    low = np.floor(points_N2.min(0) * 2).astype(int) - pad
    high = np.ceil(points_N2.max(0) * 2).astype(int) + pad
    x0, y0 = max(0, int(low[0])), max(0, int(low[1]))
    return x0, y0, min(2 * WIDTH, int(high[0])), min(2 * HEIGHT, int(high[1]))


class BlurredField:
    """Soft lights and shadows over a box of the canvas: RGB factors of a base colour, at a `step`-th of the resolution.

    `fill` and `stroke` paint changes of the factor into a layer, `add` blurs and adds it. `colours` gives the result.
    """

    def __init__(self, box: Box, step: int = 4) -> None:
        self.box, self.step = box, step
        # At low resolution, a wide blur costs little.
        self.size = (max(1, -(-(box[2] - box[0]) // step)), max(1, -(-(box[3] - box[1]) // step)))
        self.factor = np.ones((self.size[1], self.size[0], 3), np.float32)

    def layer(self) -> np.ndarray:
        return np.zeros_like(self.factor)

    def _at(self, points_N2: np.ndarray) -> np.ndarray:
        corner = np.array([self.box[0], self.box[1]])
        pixels = (points_N2 * 2 + 0.5 - corner) / self.step - 0.5 + 0.5 / self.step
        return np.rint(pixels * _SUBPIXELS).astype(np.int32)

    def fill(self, layer: np.ndarray, points_N2: np.ndarray, rgb: Rgb) -> None:
        cv2.fillPoly(layer, [self._at(points_N2)], rgb, shift=_SUBPIXEL_BITS)

    def stroke(self, layer: np.ndarray, lines: list[np.ndarray], rgb: Rgb, thick: int) -> None:
        cv2.polylines(layer, [self._at(p) for p in lines], False, rgb, thick, shift=_SUBPIXEL_BITS)

    def add(self, layer: np.ndarray, sigma: float) -> None:
        self.factor += cv2.GaussianBlur(layer, (0, 0), sigma)

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the coordinates of the field's pixels in the picture: x (1, w) and y (h, 1)."""
        x = ((np.arange(self.size[0], dtype=np.float32) + 0.5) * self.step + self.box[0] - 1.0) / 2
        y = ((np.arange(self.size[1], dtype=np.float32) + 0.5) * self.step + self.box[1] - 1.0) / 2
        return x[None, :], y[:, None]

    def colours(self, rgb: Rgb) -> np.ndarray:
        """Return the base colour times the factors: uint8 of the box's size."""
        field = cv2.convertScaleAbs(np.maximum(self.factor, 0) * np.array(rgb, np.float32))
        wide = cv2.resize(field, (self.size[0] * self.step, self.size[1] * self.step), interpolation=cv2.INTER_LINEAR)
        return wide[: self.box[3] - self.box[1], : self.box[2] - self.box[0]]
