"""The chunks of a PNG: its header and compressed rows, seen whole before a decoder gets them."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK, _CRC = struct.Struct(">I4s"), struct.Struct(">I")
_HEADER = struct.Struct(">IIBBBBB")


def is_png(picture: np.ndarray | bytes) -> bool:
    """Return whether a picture that is a JPEG or a PNG is a PNG."""
    # By one byte: a slice of an array as bytes takes longer than the check of a JPEG's header.
    return len(picture) > 0 and bool(picture[0] == SIGNATURE[0])


class PngHeader(NamedTuple):
    """IHDR: colours are 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha."""

    width: int
    height: int
    bits: int
    colours: int
    compression: int
    filters: int
    interlaced: int


def read_chunks(png: np.ndarray | bytes) -> tuple[PngHeader, list[memoryview]]:
    """Return the header of a PNG and its parts of compressed rows. Raises ValueError where it is damaged or cut short."""
    try:
        header, packed = _chunks(memoryview(png))  # type: ignore[arg-type]  # of an array or of bytes
        return PngHeader(*_HEADER.unpack(header)), packed
    except struct.error:
        raise ValueError("is a PNG cut short") from None


def _chunks(data: memoryview) -> tuple[memoryview, list[memoryview]]:
    """Return the body of IHDR and those of IDAT. Raises struct.error where the file ends too soon."""
    if bytes(data[:8]) != SIGNATURE:
        raise ValueError("is no PNG")
    at, name, header, packed = 8, b"", data[:0], []
    while name != b"IEND":
        length, name = _CHUNK.unpack_from(data, at)
        body = data[at + 8 : at + 8 + length]
        if _CRC.unpack_from(data, at + 8 + length)[0] != zlib.crc32(body, zlib.crc32(name)):
            raise ValueError("is a damaged PNG: a checksum differs")
        if name == b"IHDR":
            header = body
        elif name == b"IDAT":
            packed.append(body)
        at += 12 + length
    return header, packed
