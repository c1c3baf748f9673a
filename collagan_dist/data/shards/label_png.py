"""Decode the label map of a sample: an 8-bit grey PNG whose size is known before.

Several times as fast as decoders of pictures: packing stores rows as they are (no differences), so inflating them is all.
"""

from __future__ import annotations

import io
import zlib

import cv2
import numpy as np

from collagan_dist.data.shards.png_chunks import read_chunks
from collagan_dist.data.shards.sample_check import WrongSample
from collagan_dist.types import CLASSES

_MAX_FILTER = 4
_GREY, _PALETTE = 0, 3  # colours of a PNG


def decode_label_map(png: np.ndarray | bytes, width: int, height: int) -> np.ndarray:
    """Return the (height, width) uint8 classes of a label map.

    Raises WrongSample for a sound PNG that is no label map of this size, ValueError for what is no sound PNG.
    """
    labels = _decode(png, width, height)
    # Another value would index out of the one-hot map, which on a GPU ends the process.
    if (largest := int(labels.max())) >= len(CLASSES):
        raise WrongSample(f"the label map has the value {largest}; classes are 0 to {len(CLASSES) - 1}")
    return labels


def _decode(png: np.ndarray | bytes, width: int, height: int) -> np.ndarray:
    try:
        header, packed = read_chunks(png)
    except ValueError as error:
        raise ValueError(f"the label map {error}") from None
    if (header.width, header.height) != (width, height):
        raise WrongSample(f"the label map is {header.width}x{header.height}, its json says {width}x{height}")
    if header.colours == _PALETTE:
        return _decode_palette(png, height, width)
    if (header.bits, header.colours, header.compression, header.filters) != (8, _GREY, 0, 0):
        raise WrongSample("the label map is not grey with 8 bits")
    if not header.interlaced:
        # A row is one byte, its filter, and then its pixels.
        stored = np.frombuffer(_inflate(packed, height * (width + 1)), np.uint8).reshape(height, width + 1)
        if not (last := stored[:, 0].max()):
            return stored[:, 1:]
        if last > _MAX_FILTER:
            raise ValueError("the label map is a damaged PNG: a row has an unknown filter")
    # Written by another program, or by packing before it left filters out.
    values = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    if values is None or values.shape != (height, width):
        raise ValueError("the label map is a PNG whose rows do not decode")
    return values


def _decode_palette(png: np.ndarray | bytes, height: int, width: int) -> np.ndarray:
    """Return the indices of a palette: label maps in adopted tars may have colours to look at."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(bytes(png)), formats=("PNG",)) as image:
            values = np.asarray(image)
    except Exception:  # Pillow's decoders raise whatever they meet
        raise ValueError("the label map is a PNG whose rows do not decode") from None
    if values.dtype != np.uint8 or values.shape != (height, width):
        raise WrongSample("the label map is not grey with 8 bits")
    return values


def _inflate(packed: list[memoryview], count: int) -> bytes:
    """Return the `count` bytes that were compressed. Raises ValueError for any other number; no more than that is inflated."""
    inflate = zlib.decompressobj()
    try:
        rows = inflate.decompress(packed[0] if len(packed) == 1 else b"".join(packed), count + 1)
    except zlib.error as error:
        raise ValueError(f"the label map is a damaged PNG: {error}") from None
    if len(rows) != count or not inflate.eof:
        raise ValueError("the label map is a PNG with too many rows or too few")
    return rows
