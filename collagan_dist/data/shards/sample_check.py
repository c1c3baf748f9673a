"""What a sample of a shard must be before anything is computed from it: the one check of training and `collagan verify --deep`.

Shards come from elsewhere too. A face square far beyond its picture gives the decoder a region of negative size, which ends the
process by a segmentation fault. A landmark of another type fails in the middle of a batch.
"""

from __future__ import annotations

import struct
from typing import Annotated

import numpy as np
import simplejpeg
from pydantic import Field

from collagan_dist import structured
from collagan_dist.data.face_square import square_problem, stored_square
from collagan_dist.types import CLASSES, LANDMARKS, MAX_PIXELS

_MAX_JSON_BYTES = 1 << 16  # a sample's own has some 300
# Sums of such numbers stay exact enough to be compared.
Coordinate = Annotated[float, Field(gt=-1e9, lt=1e9)]
Point = Annotated[list[Coordinate], Field(min_length=2, max_length=2)]
_PNG, _CHUNK = b"\x89PNG\r\n\x1a\n", struct.Struct(">I4s")
_HEADER = struct.Struct(">IIBB")  # width, height, bits and colour type, at byte 16 of a PNG
_GREY_8 = (8, 0)
_COLOURS = ("RGB", "YCbCr", "Gray")  # what every JPEG decoder turns into RGB


class WrongSample(ValueError):
    """A sample that training cannot use; the message says why."""


class Meta(structured.Record):
    """The json of a sample. `square` is (x, y, side) of the face square where there are no landmarks."""

    width: Annotated[int, Field(ge=1, le=MAX_PIXELS)]
    height: Annotated[int, Field(ge=1, le=MAX_PIXELS)]
    landmarks: Annotated[list[Point], Field(min_length=len(LANDMARKS), max_length=len(LANDMARKS))] | None
    square: Annotated[list[Coordinate], Field(min_length=3, max_length=3)] | None = None


def parse_meta(content: bytes) -> Meta:
    """Return the json of a sample. Raises WrongSample unless its sizes and annotations can be used."""
    if len(content) > _MAX_JSON_BYTES:
        raise WrongSample(f"its json has {len(content)} bytes, more than {_MAX_JSON_BYTES}")
    try:
        meta = structured.check(content, Meta, "its json")  # not `parse`, which reads twice: there are millions
    except structured.Malformed as error:
        raise WrongSample(str(error)) from None
    if meta.width * meta.height > MAX_PIXELS:
        raise WrongSample(f"{meta.width} x {meta.height} are more than {MAX_PIXELS} pixels")
    if meta.landmarks is not None and len(set(map(tuple, meta.landmarks))) < len(LANDMARKS):
        raise WrongSample("two of its landmarks are the same point")
    square = stored_square(meta.landmarks, meta.square, meta.width, meta.height)
    if (problem := square_problem(square, meta.width, meta.height)) is not None:
        raise WrongSample(problem)
    return meta


def check_headers(width: int, height: int, jpg: np.ndarray | bytes, labels: np.ndarray | bytes | None) -> None:
    """Check that a picture, and a label map if there is one, begin as files of this size.

    Raises WrongSample for files that are valid but not of this sample, ValueError for bytes that do not parse.
    """
    # DALI refuses what does not parse while it decodes the rest of the batch, and crashes the process (2.4.0: a segmentation
    # fault within 40 such batches). Bytes that parse but do not decode raise an ordinary error.
    rows, columns, colours, _ = simplejpeg.decode_jpeg_header(jpg)
    _check_size("the picture", (columns, rows), (width, height))
    if colours not in _COLOURS:
        raise WrongSample(f"the picture has the colours {colours}")
    if labels is not None:
        try:
            _check_png(labels, (width, height))
        except struct.error:
            raise ValueError("the label map is a PNG cut short") from None


def _check_size(what: str, size: tuple[int, int], expected: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise WrongSample(f"{what} has {size[0]} x {size[1]} pixels, more than {MAX_PIXELS}: a decompression bomb")
    if size != expected:
        raise WrongSample(f"{what} is {size[0]}x{size[1]}, its json says {expected[0]}x{expected[1]}")


def _check_png(png: np.ndarray | bytes, size: tuple[int, int]) -> None:
    """Raise unless a label map's chunks follow each other up to the last one."""
    data = memoryview(png)  # type: ignore[arg-type]  # of an array or of bytes
    if bytes(data[:8]) != _PNG:
        raise ValueError("the label map is no PNG")
    columns, rows, *kind = _HEADER.unpack_from(data, 16)
    _check_size("the label map", (columns, rows), size)
    if tuple(kind) != _GREY_8:
        raise WrongSample("the label map is not grey with 8 bits")
    at, name = 8, b""
    while name != b"IEND":
        length, name = _CHUNK.unpack_from(data, at)
        at += 12 + length
    if at > len(data):
        raise ValueError("the label map is a PNG cut short")


def check_labels(largest: int) -> None:
    """Raise WrongSample unless the largest value of a label map is a class."""
    if largest >= len(CLASSES):
        raise WrongSample(f"the label map has the value {largest}; classes are 0 to {len(CLASSES) - 1}")
