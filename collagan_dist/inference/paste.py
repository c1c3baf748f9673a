"""Paste a completed face into its photograph: pixels in the hole are interpolated, all others stay as they are."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from collagan_dist.data.loading.holes import continue_smoothly
from collagan_dist.data.readers.colour_profile import describes, from_srgb, is_grey, to_srgb
from collagan_dist.data.readers.picture import resize_nearest
from collagan_dist.inference.face_views import Window
from collagan_dist.inference.hole_mask import HolePart, trim_hole
from collagan_dist.tasks.inpainting import to_bytes
from collagan_dist.types import image_from_pixels

# Rows at a time, so that a hole in the largest picture takes little memory. A hole whose box is larger than _MAX_BLEND_SIDE is
# blended at the model's size alone.
_STRIP_ROWS, _MAX_BLEND_SIDE = 256, 2048
_PNG_LEVEL = 1  # a photograph hardly shrinks further: level 6 takes several times as long
_BLEND_CONTEXT = 8  # pixels around the hole's box that decide its colours


def place_hole(hole_HW: np.ndarray | None, made_SS: np.ndarray, window: Window, shape: tuple[int, int]) -> HolePart:
    """Return where a photograph of a shape (height, width) is completed: its given hole, else a made one resized to the window."""
    left, top = 0, 0
    if hole_HW is None:
        left, top, side = window
        hole_HW = resize_nearest(made_SS, (side, side))[max(0, -top) :, max(0, -left) :]
        left, top = max(0, left), max(0, top)
        hole_HW = hole_HW[: shape[0] - top, : shape[1] - left]
    return trim_hole(hole_HW, left, top) or HolePart((left, top, left, top), np.zeros((0, 0), bool))


def paste(
    pixels_HW3: np.ndarray, hole: HolePart, done_3SS: torch.Tensor, window: Window, profile: bytes | None, blend: bool
) -> None:
    """Overwrite a photograph's pixels in the hole by those of its completed window (sRGB, in [-1, 1]).

    `blend` also removes, at full resolution, what is left of the difference along the hole's border.
    """
    left, top, right, bottom = hole.box
    if right == left:
        return
    size, side = done_3SS.shape[-1], window[2]
    # At the model's size, nothing is interpolated and nothing is left to blend.
    blend = blend and side != size and max(right - left, bottom - top) <= _MAX_BLEND_SIDE
    if blend:
        corrected = _blended(pixels_HW3, hole, done_3SS, window, profile)
    grey = is_grey(pixels_HW3, profile)
    for first in range(top, bottom, _STRIP_ROWS):
        last = min(first + _STRIP_ROWS, bottom)
        rows = slice(first - top, last - top)
        part = corrected[:, rows] if blend else resample(done_3SS, window, (left, first, right, last))
        colours = from_srgb(to_bytes(part[None])[0], profile, grey)
        target = pixels_HW3[first:last, left:right]
        np.copyto(target, colours, where=hole.hole_HW[rows, :, None])


def resample(values_CSS: torch.Tensor, window: Window, box: tuple[int, int, int, int]) -> torch.Tensor:
    """Return (C, H, W) of the photograph's pixels in the box, interpolated from a window of (C, S, S) float32 on the CPU."""
    size = values_CSS.shape[-1]
    left, top, right, bottom = (edge - window[axis % 2] for axis, edge in enumerate(box))
    weights = _weights(size, window[2])
    return weights[top:bottom] @ values_CSS @ weights[left:right].T


def _weights(size: int, side: int) -> torch.Tensor:
    """Return the (side, size) matrix that resizes a column of `size` values as OpenCV does: cubic, or means to shrink."""
    method = cv2.INTER_CUBIC if side > size else cv2.INTER_AREA
    # One column of the identity at a time would be a resize of that unit vector; rows are not resized.
    return torch.from_numpy(cv2.resize(np.eye(size, dtype=np.float32), (size, side), interpolation=method))


def _blended(
    pixels_HW3: np.ndarray, hole: HolePart, done_3SS: torch.Tensor, window: Window, profile: bytes | None
) -> torch.Tensor:
    """Return the box of the hole, (3, h, w): completed, plus its difference to the photograph, continued into the hole."""
    # A Poisson equation's solution is the completion plus a harmonic function that has this difference at the border.
    pad, (left, top, right, bottom) = _BLEND_CONTEXT, hole.box
    height, width = pixels_HW3.shape[:2]
    outer = (
        max(left - pad, window[0], 0), max(top - pad, window[1], 0),
        min(right + pad, window[0] + window[2], width), min(bottom + pad, window[1] + window[2], height),
    )  # fmt: skip
    done = resample(done_3SS, window, outer)
    context = np.ascontiguousarray(pixels_HW3[outer[1] : outer[3], outer[0] : outer[2]])
    truth = image_from_pixels(torch.from_numpy(to_srgb(context, profile).copy())[None])[0]
    inner = (slice(top - outer[1], bottom - outer[1]), slice(left - outer[0], right - outer[0]))
    unknown = torch.zeros(done.shape[1:], dtype=torch.bool)
    unknown[inner] = torch.from_numpy(hole.hole_HW.copy())
    # Squares are halved until one pixel is left. What is added to make one is unknown, too.
    side = max(unknown.shape)
    add = (0, side - unknown.shape[1], 0, side - unknown.shape[0])
    difference = F.pad(truth - done, add)[None]
    lifted = continue_smoothly(difference, F.pad(unknown, add, value=True)[None, None])[0]
    return (done + lifted[:, : done.shape[1], : done.shape[2]])[:, inner[0], inner[1]]


def encode_photograph(pixels_HW3: np.ndarray, profile: bytes | None) -> Iterator[bytes]:
    """Yield the pieces of a PNG file with the pixels (uint8 RGB) and their ICC profile."""
    # In strips: Pillow and OpenCV hold two or three copies of the picture, 200 MB each of the largest.
    height, width = pixels_HW3.shape[:2]
    grey = is_grey(pixels_HW3, profile)
    channels = 1 if grey else 3
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if grey else 2, 0, 0, 0)
    yield b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header)
    # A PNG in colours with a profile of grey is refused by its readers.
    if profile is not None and describes(profile, grey):
        yield _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))
    deflate = zlib.compressobj(_PNG_LEVEL)
    for first in range(0, height, _STRIP_ROWS):
        strip = pixels_HW3[first : first + _STRIP_ROWS, :, :channels]
        # Each row begins with the number of its filter: 1, differences to the pixel on the left.
        rows = np.ones((len(strip), 1 + channels * width), np.uint8)
        rows[:, 1 : 1 + channels] = strip[:, 0]
        np.subtract(strip[:, 1:], strip[:, :-1], out=rows[:, 1 + channels :].reshape(strip[:, 1:].shape))
        if piece := deflate.compress(rows.data):
            yield _chunk(b"IDAT", piece)
    yield _chunk(b"IDAT", deflate.flush()) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
