"""What a sample of a shard must be before anything is computed from it: the one check of training and `collagan verify --deep`.

Shards come from elsewhere too. A face square far beyond its picture gives the decoder a region of negative size, which ends the
process by a segmentation fault. A landmark of another type fails in the middle of a batch.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import simplejpeg

from collagan_dist.data.face_square import square_problem, stored_square
from collagan_dist.types import CLASSES, LANDMARKS, MAX_PIXELS

_MAX_JSON_BYTES = 1 << 16  # a sample's own has some 300
_LARGEST = 1e9  # of a coordinate; sums of such numbers stay exact enough to be compared
# The scanner inside the decoder: json.loads would also search for blanks around every sample's text.
_parse_json: Any = vars(json.JSONDecoder())["scan_once"]
_PNG, _CHUNK = b"\x89PNG\r\n\x1a\n", struct.Struct(">I4s")
_HEADER = struct.Struct(">IIBB")  # width, height, bits and colour type, at byte 16 of a PNG
_GREY_8 = (8, 0)
_COLOURS = ("RGB", "YCbCr", "Gray")  # what every JPEG decoder turns into RGB


class WrongSample(ValueError):
    """A sample that training cannot use; the message says why."""


def parse_meta(content: bytes) -> dict[str, Any]:
    """Return the json of a sample. Raises WrongSample unless its sizes and annotations can be used."""
    if len(content) > _MAX_JSON_BYTES:
        raise WrongSample(f"its json has {len(content)} bytes, more than {_MAX_JSON_BYTES}")
    try:
        meta = _parse_json(content.decode(), 0)[0]
        _check_meta(meta)
    # Nested deeply, too long a number, no object, a key that is missing, a number where a list belongs.
    except (ValueError, KeyError, TypeError, StopIteration, RecursionError) as error:
        text = str(error) if isinstance(error, WrongSample) else f"{error!r:.200}"
        raise WrongSample(text) from None
    return meta


def _check_meta(meta: dict[str, Any]) -> None:
    width, height = meta["width"], meta["height"]
    # `type`, because True is an int to isinstance.
    if type(width) is not int or type(height) is not int or min(width, height) < 1 or width * height > MAX_PIXELS:
        raise WrongSample(f"width and height are no size of a picture ({width!r:.20} and {height!r:.20})")
    points, square = meta["landmarks"], meta.get("square")
    if points is not None:
        _check_points(points)
    elif square is not None and (len(square) != 3 or not all(map(_is_coordinate, square))):
        raise WrongSample("its square is not three finite numbers")
    if (problem := square_problem(stored_square(points, square, width, height), width, height)) is not None:
        raise WrongSample(problem)


def _check_points(points: Any) -> None:
    if len(points) != len(LANDMARKS) or not all(_is_coordinate(x) and _is_coordinate(y) for x, y in points):
        raise WrongSample(f"its landmarks are not {len(LANDMARKS)} points of finite numbers")
    if len({(x, y) for x, y in points}) < len(points):
        raise WrongSample("two of its landmarks are the same point")


def _is_coordinate(value: object) -> bool:
    return type(value) in (int, float) and -_LARGEST < value < _LARGEST  # type: ignore[operator]  # NaN is not


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
