"""Augmentation and resampling: one affine matrix per sample moves its picture, label map and landmarks.

A canvas is the decoded face square with its margin; a view is the picture that the networks see. Matrices map pixels
(x, y) of the view to pixels of the canvas, with integers at pixel centres.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from collagan_dist import rng
from collagan_dist.config.tree import Augment
from collagan_dist.data.shards.shard_reader import StoredSample
from collagan_dist.types import CLASS_FLIP, FACE_SQUARE, LANDMARK_FLIP, MARGIN, image_from_pixels


class Augmentation(NamedTuple):
    """Shift (x, y, as shares of the side), angle (radians), scale and mirroring, of one sample or of a batch."""

    shift: np.ndarray
    angle: Any
    scale: Any
    flip: Any


IDENTITY = Augmentation(np.zeros(2), 0.0, 1.0, False)


def canvas_size(image_size: int) -> int:
    """Return the side of a canvas: MARGIN times the view, rounded up to sixteenths of it (128 -> 176)."""
    return int(np.ceil(MARGIN * 16 / 2) * 2) * image_size // 16


def canvas_region(sample: StoredSample) -> np.ndarray:
    """Return [top, left, bottom, right] of the margin square in the stored picture, clipped to it."""
    square = sample.square.scaled(MARGIN)
    half = square.side / 2
    left, top = max(0.0, square.x + 0.5 - half), max(0.0, square.y + 0.5 - half)
    right, bottom = min(sample.width, square.x + 0.5 + half), min(sample.height, square.y + 0.5 + half)
    return np.array([top, left, bottom, right])


def region_to_canvas(regions_B4: np.ndarray, size: int) -> np.ndarray:
    """Return (B, 3, 3) matrices from stored pixels to canvas pixels."""
    # In float64, as all matrices: a label between two pixels must fall to the same one on every machine.
    top, left, bottom, right = regions_B4.T
    sx, sy = size / (right - left), size / (bottom - top)
    matrix = np.zeros((len(regions_B4), 3, 3))
    matrix[:, 0, 0], matrix[:, 0, 2] = sx, (0.5 - left) * sx - 0.5
    matrix[:, 1, 1], matrix[:, 1, 2] = sy, (0.5 - top) * sy - 0.5
    matrix[:, 2, 2] = 1
    return matrix


def view_to_stored(
    sample: StoredSample, size: int, augmentation: Augmentation = IDENTITY, face_square: float = FACE_SQUARE
) -> np.ndarray:
    """Return the (3, 3) matrix from pixels of a view of `size` to stored pixels: mirror, scale, rotate, shift.

    `face_square` is data.face_square. Shards are cut for views of FACE_SQUARE; what wider views lack is reflected.
    """
    shift, angle, scale, flip = augmentation
    # The product of four matrices, written out: view pixels to shares of the side around the middle; mirror; rotate,
    # scale and shift; shares to stored pixels.
    middle, mirror, side = 0.5 / size - 0.5, -1.0 if flip else 1.0, sample.square.side * (face_square / FACE_SQUARE)
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    x = side * ((cos * mirror - sin) * middle + shift[0]) + sample.square.x
    y = side * ((sin * mirror + cos) * middle + shift[1]) + sample.square.y
    step = side / size
    return np.array([[step * cos * mirror, -step * sin, x], [step * sin * mirror, step * cos, y], [0.0, 0.0, 1.0]])


def draw_augmentation(key: np.ndarray, augment: Augment | None) -> Augmentation:
    """Return the augmentation of a batch, a pure function of its keys; the identity without `augment`."""
    count = len(key)
    if augment is None:
        return Augmentation(np.zeros((count, 2)), np.zeros(count), np.ones(count), np.zeros(count, bool))
    u = rng.uniforms(key, 5)
    signed = 2 * u - 1
    shift, angle = augment.shift * signed[:, :2], np.deg2rad(augment.rotate) * signed[:, 2]
    return Augmentation(shift, angle, 1 + augment.scale * signed[:, 3], u[:, 4] < augment.flip)


def warp(
    canvas_BHW3: torch.Tensor, label_BHW: torch.Tensor | None, matrix_B33: np.ndarray, flip_B: np.ndarray, size: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return views of uint8 canvases on the CPU: (B, 3, size, size) float32 in [-1, 1], bilinear; (B, size, size) labels, nearest.

    Left and right classes are exchanged in mirrored samples. Labels are equal on all devices, pictures to float32.
    """
    # By OpenCV, in a quarter of torch's time on a CPU (benchmarks/geometry.py).
    image = _warp_image_cpu(canvas_BHW3.numpy(), matrix_B33, size)
    return image, _warp_labels_cpu(label_BHW.numpy(), matrix_B33, flip_B, size) if label_BHW is not None else None


def warp_on_device(
    canvas_BHW3: torch.Tensor,
    label_BHW: torch.Tensor | None,
    matrix_B33: torch.Tensor,
    flip_B: torch.Tensor,
    inside: bool,
    size: int,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Do the work of `warp` by torch, where all tensors are. `inside`: `stays_inside` of the matrices."""
    grid = sample_grid(matrix_B33, inside, size, canvas_BHW3.shape[1])
    image = warp_image(canvas_BHW3, grid)
    return image, None if label_BHW is None else swap_labels(warp_labels(label_BHW, grid), flip_B)


def _warp_image_cpu(canvas_BHW3: np.ndarray, matrix_B33: np.ndarray, size: int) -> torch.Tensor:
    views = torch.empty(len(canvas_BHW3), 3, size, size)
    # A fourth channel, which nobody reads: OpenCV has vector code for four, and takes 2.5 times as long for three.
    height, width = canvas_BHW3.shape[1:3]
    rgba, source = np.empty((height, width, 4), np.uint8), np.empty((height, width, 4), np.float32)
    warped, unused = np.empty((size, size, 4), np.float32), np.empty((size, size), np.float32)
    how = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_REFLECT_101}
    for canvas, matrix, view in zip(canvas_BHW3, matrix_B33, views.numpy(), strict=True):
        cv2.cvtColor(canvas, cv2.COLOR_RGB2RGBA, dst=rgba)
        np.copyto(source, rgba)
        cv2.warpAffine(source, matrix[:2], (size, size), dst=warped, **how)
        cv2.split(warped, [*view, unused])
    # As types.image_from_pixels, but in place and in one pass over the views; it rounds once, so its last bit may differ.
    return torch.add(torch.tensor(-1.0), views, alpha=1 / 127.5, out=views)


def _warp_labels_cpu(label_BHW: np.ndarray, matrix_B33: np.ndarray, flip_B: np.ndarray, size: int) -> torch.Tensor:
    """Do the work of `warp_labels` on a CPU, equal to the pixel."""
    # The float64 sums of `sample_grid` in the same order; OpenCV's own warp rounds to other nearest pixels. Torch adds rows and
    # columns and looks up pixels several times as fast as NumPy and OpenCV.
    side = label_BHW.shape[1]
    step = np.arange(size, dtype=np.float64)
    across = torch.from_numpy(matrix_B33[:, :2, 0, None] * step)[:, :, None, :]
    down = torch.from_numpy(matrix_B33[:, :2, 1, None] * step + matrix_B33[:, :2, 2, None])[..., None]
    inside = stays_inside(matrix_B33, size, side)
    table = np.zeros(256, np.uint8)
    table[: len(CLASS_FLIP)] = CLASS_FLIP
    views = torch.empty(len(label_BHW), size, size, dtype=torch.uint8)
    grid, pixels = torch.empty(2, size, size, dtype=torch.float64), torch.empty(2, size, size, dtype=torch.int32)
    flat = torch.empty(size * size, dtype=torch.int32)
    for number, (label, view) in enumerate(zip(torch.from_numpy(label_BHW), views, strict=True)):
        torch.add(across[number], down[number], out=grid)
        if not inside[number]:
            grid = _reflected(grid, side)
        pixels.copy_(grid.add_(0.5))  # truncating rounds down, as coordinates are not negative
        torch.add(pixels[0].view(-1), pixels[1].view(-1), alpha=side, out=flat)
        torch.index_select(label.reshape(-1), 0, flat, out=view.view(-1))
        if flip_B[number]:
            cv2.LUT(view.numpy(), table, dst=view.numpy())
    return views


def stays_inside(matrix_B33: np.ndarray, size: int, canvas: int) -> np.ndarray:
    """Return (B,) bool: which views of `size` stay within the outer pixel centres of their canvas."""
    # An affine map has its extremes at the corners.
    corners = matrix_B33[:, :2] @ np.array([[0, size - 1, 0, size - 1], [0, 0, size - 1, size - 1], [1, 1, 1, 1]])
    return (corners.min(axis=(1, 2)) >= 0) & (corners.max(axis=(1, 2)) <= canvas - 1)


def sample_grid(matrix_B33: torch.Tensor, inside: bool, view: int, canvas: int) -> torch.Tensor:
    """Return (B, view, view, 2) float64 canvas coordinates of view pixels, reflected at the outer pixel centres.

    If all views are `inside` their canvas there is nothing to reflect.
    """
    m = matrix_B33[:, :, :, None, None]
    step = torch.arange(view, dtype=torch.float64, device=matrix_B33.device)
    x, y = step[None, None, :], step[None, :, None]
    grid = torch.stack([m[:, r, 0] * x + (m[:, r, 1] * y + m[:, r, 2]) for r in range(2)], dim=-1)
    if inside:
        return grid
    return _reflected(grid, canvas)


def _reflected(at: torch.Tensor, side: int) -> torch.Tensor:
    """Return coordinates reflected at the outer pixel centres of `side` pixels."""
    period = 2.0 * (side - 1)
    folded = at.remainder(period)
    return torch.minimum(folded, period - folded)


def warp_image(canvas_BHW3: torch.Tensor, grid_BHW2: torch.Tensor) -> torch.Tensor:
    """Sample (B, 3, H, W) float32 views in [-1, 1] of uint8 canvases, bilinear."""
    unit = (grid_BHW2 * (2.0 / (canvas_BHW3.shape[1] - 1)) - 1).float()
    return F.grid_sample(
        image_from_pixels(canvas_BHW3), unit, mode="bilinear", padding_mode="border", align_corners=True
    )


def warp_labels(canvas_BHW: torch.Tensor, grid_BHW2: torch.Tensor) -> torch.Tensor:
    """Sample (B, H, W) views of label canvases, nearest."""
    batch, height, width = canvas_BHW.shape
    index = (grid_BHW2 + 0.5).floor_().long()
    flat = index[..., 1] * width + index[..., 0]
    return canvas_BHW.reshape(batch, height * width).gather(1, flat.reshape(batch, -1)).reshape(grid_BHW2.shape[:3])


def swap_labels(label_BHW: torch.Tensor, flip_B: torch.Tensor) -> torch.Tensor:
    """Exchange left and right classes in mirrored samples."""
    return torch.where(flip_B[:, None, None], _class_flip(label_BHW.device)[label_BHW.long()], label_BHW)


@cache
def _class_flip(device: torch.device) -> torch.Tensor:
    # Kept: making it on a device waits for the device.
    return torch.tensor(CLASS_FLIP, dtype=torch.uint8, device=device)


def move_points(points_BK2: np.ndarray, stored_to_view_B33: np.ndarray, flip_B: np.ndarray) -> np.ndarray:
    """Return float64 landmarks in pixels of the view, left and right exchanged in mirrored samples."""
    moved = np.einsum("brc,bkc->bkr", stored_to_view_B33[:, :2, :2], points_BK2) + stored_to_view_B33[:, None, :2, 2]
    return np.where(flip_B[:, None, None], moved[:, list(LANDMARK_FLIP)], moved)
