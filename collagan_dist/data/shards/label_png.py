"""Decode the label map of a sample: an 8-bit grey PNG whose size is known before.

Several times as fast as decoders of pictures: packing stores rows as they are (no differences), so inflating them is all.
"""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np

from collagan_dist.data.shards.sample_check import WrongSample
from collagan_dist.types import CLASSES

_SIGNATURE, _CHUNK, _CRC = b"\x89PNG\r\n\x1a\n", struct.Struct(">I4s"), struct.Struct(">I")
# Width, height, bits, colour type, methods of compression and filter, interlacing.
_HEADER = struct.Struct(">IIBBBBB")
_GREY_8 = (8, 0, 0, 0)
_MAX_FILTER = 4


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
        header, packed = _chunks(memoryview(png))  # type: ignore[arg-type]  # of an array or of bytes
        columns, rows, *kind, interlaced = _HEADER.unpack(header)
    except struct.error:
        raise ValueError("the label map is a PNG cut short") from None
    if (columns, rows) != (width, height):
        raise WrongSample(f"the label map is {columns}x{rows}, its json says {width}x{height}")
    if tuple(kind) != _GREY_8:
        raise WrongSample("the label map is not grey with 8 bits")
    if not interlaced:
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


def _chunks(data: memoryview) -> tuple[memoryview, list[memoryview]]:
    """Return the header of a PNG and its parts of compressed rows. Raises struct.error where it is cut short."""
    if bytes(data[:8]) != _SIGNATURE:
        raise ValueError("the label map is no PNG")
    at, name, header, packed = 8, b"", data[:0], []
    while name != b"IEND":
        length, name = _CHUNK.unpack_from(data, at)
        body = data[at + 8 : at + 8 + length]
        if _CRC.unpack_from(data, at + 8 + length)[0] != zlib.crc32(body, zlib.crc32(name)):
            raise ValueError("the label map is a damaged PNG: a checksum differs")
        if name == b"IHDR":
            header = body
        elif name == b"IDAT":
            packed.append(body)
        at += 12 + length
    return header, packed


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
