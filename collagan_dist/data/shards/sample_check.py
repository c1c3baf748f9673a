"""What a sample of a shard must be before anything is computed from it: the one check of training and `collagan verify --deep`.

Shards come from elsewhere too. A face square far beyond its picture gives the decoder a region of negative size, which ends the
process by a segmentation fault. A landmark of another type fails in the middle of a batch.
"""

from __future__ import annotations

from typing import Annotated

import cv2
import numpy as np
import simplejpeg
from pydantic import Field

from collagan_dist import structured
from collagan_dist.data.face_square import Square, square_problem, stored_square
from collagan_dist.data.shards import png_chunks
from collagan_dist.types import LANDMARKS, MAX_PIXELS

_MAX_JSON_BYTES = 1 << 16  # a sample's own has some 300
# Sums of such numbers stay exact enough to be compared.
Coordinate = Annotated[float, Field(gt=-1e9, lt=1e9)]
Point = Annotated[list[Coordinate], Field(min_length=2, max_length=2)]
_COLOURS = ("RGB", "YCbCr", "Gray")  # what every JPEG decoder turns into RGB


class WrongSample(ValueError):
    """A sample that training cannot use; the message says why."""


class Meta(structured.Record):
    """The json of a sample. `square` is (x, y, side) of the face square where there are no landmarks."""

    width: Annotated[int, Field(ge=1, le=MAX_PIXELS)]
    height: Annotated[int, Field(ge=1, le=MAX_PIXELS)]
    landmarks: Annotated[list[Point], Field(min_length=len(LANDMARKS), max_length=len(LANDMARKS))] | None
    square: Annotated[list[Coordinate], Field(min_length=3, max_length=3)] | None = None


def parse_meta(content: bytes) -> tuple[Meta, Square]:
    """Return the json of a sample, and the face square that follows. Raises WrongSample unless a view can be cut by them."""
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
    return meta, square


def check_picture(picture: np.ndarray | bytes, width: int, height: int) -> None:
    """Check that a picture begins as a JPEG of this size, or is a PNG of it, as adopted tars may have.

    Raises WrongSample for a sound beginning that is not this sample's, ValueError for bytes that do not parse.
    """
    # DALI refuses what does not parse while it decodes the rest of the batch, and crashes the process (2.4.0: a segmentation
    # fault within 40 such batches). Bytes that parse but do not decode raise an ordinary error.
    if png_chunks.is_png(picture):
        columns, rows, problem = _png_header(picture)
    else:
        rows, columns, colours, _ = simplejpeg.decode_jpeg_header(picture)
        problem = None if colours in _COLOURS else f"has the colours {colours}"
    if columns * rows > MAX_PIXELS:
        raise WrongSample(f"the picture has {columns} x {rows} pixels, more than {MAX_PIXELS}: a decompression bomb")
    if (columns, rows) != (width, height):
        raise WrongSample(f"the picture is {columns}x{rows}, its json says {width}x{height}")
    if problem is not None:
        raise WrongSample(f"the picture {problem}")


def decode_picture(picture: np.ndarray | bytes) -> np.ndarray:
    """Return the (H, W, 3) uint8 RGB pixels of a picture that `check_picture` has seen. Raises ValueError."""
    if not png_chunks.is_png(picture):
        # `strict`: libjpeg only warns about data that is cut short.
        return simplejpeg.decode_jpeg(picture, "RGB", strict=True)
    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError("the rows of the PNG do not decode")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _png_header(picture: np.ndarray | bytes) -> tuple[int, int, str | None]:
    """Return width and height of a PNG whose checksums are all right, and what is wrong with its pixels."""
    header, _ = png_chunks.read_chunks(picture)
    # Decoders round 16 bits differently, by 1 of 255.
    return header.width, header.height, "has 16 bits a channel" if header.bits == 16 else None
