"""One picture or label map from disk: decoded in full, judged, cut to what a shard stores."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from collagan_dist.contract import CLASSES
from collagan_dist.data.square import Square, whole_pixels
from collagan_dist.errors import DataError

QUALITY = 95
MAX_PIXELS = 64_000_000  # of one picture: a decompression bomb is refused from its header
MIN_FACE = 32  # pixels: side of the smallest face square that is worth learning from


class Unusable(Exception):
    """A picture for quarantine; the text is the reason."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture. `jpeg` are its own bytes when they may be stored as they are."""

    pixels_HW3: np.ndarray
    jpeg: bytes | None


def read_picture(path: str) -> Picture:
    """The picture of a file, every pixel of it decoded. Raises Unusable."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise Unusable(f"cannot be read: {error.strerror}") from None
    if not content:
        raise Unusable("is an empty file")
    return _decode_jpeg(content) if content[:2] == b"\xff\xd8" else _decode_other(content)


def _decode_jpeg(content: bytes) -> Picture:
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError as error:
        raise Unusable(f"damaged JPEG: {error}") from None
    _check_size(width, height)
    if colours not in ("YCbCr", "Gray", "RGB"):
        raise Unusable(f"wrong mode {colours}, needs RGB")
    try:
        pixels = simplejpeg.decode_jpeg(content, "RGB", strict=True)
    except ValueError as error:
        raise Unusable(f"damaged JPEG: {error}") from None
    # Readers disagree about an EXIF orientation, and annotations mean the pixels as stored: such files are written anew.
    sound = colours == "YCbCr" and b"Exif\0\0" not in content[:65536] and content.rstrip(b"\0").endswith(b"\xff\xd9")
    return Picture(pixels, content if sound else None)


def _decode_other(content: bytes) -> Picture:
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "BMP", "WEBP", "TIFF")) as image:
            _check_size(*image.size)
            if image.mode not in ("RGB", "L", "P"):
                raise Unusable(f"wrong mode {image.mode}, needs RGB")
            return Picture(np.array(image.convert("RGB")), None)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise Unusable("damaged, or not a picture") from None


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Unusable(f"{width}x{height} pixels are more than {MAX_PIXELS}: a decompression bomb")
    if min(width, height) < MIN_FACE:
        raise Unusable(f"{width}x{height} pixels are smaller than {MIN_FACE}x{MIN_FACE}")


def read_labels(path: str, shape: tuple[int, int]) -> np.ndarray:
    """The (H, W) uint8 label map of a file. Raises DataError: a wrong one is a fault of the whole set, not of a sample."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P"):
                raise DataError(
                    f"{path}: a label map must be an 8-bit single-channel PNG, this is {image.mode}; convert it"
                )
            labels = np.asarray(image)
    except FileNotFoundError:
        raise DataError(
            f"{path}: the label map is missing; make it (`collagan draw` writes them), or leave `labels` out of the recipe"
        ) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: the label map is damaged ({error}); make it anew") from None
    if labels.shape != shape:
        raise DataError(
            f"{path}: the label map is {labels.shape[1]}x{labels.shape[0]}, its picture {shape[1]}x{shape[0]}; make it in the picture's size"
        )
    wrong = labels >= len(CLASSES)
    if wrong.any():
        raise DataError(
            f"{path}: label {int(labels.max())} is outside 0..{len(CLASSES) - 1} ({int(wrong.sum())} pixels); "
            "map the labels to the classes of shards/README.md"
        )
    return labels


def cut(array: np.ndarray, square: Square, size: int, nearest: bool = False) -> np.ndarray:
    """The square of a picture or label map, resized to (size, size); reflected where it leaves the picture."""
    left, top, side = whole_pixels(square)
    height, width = array.shape[:2]
    before_x, after_x = max(0, -left), max(0, left + side - width)
    before_y, after_y = max(0, -top), max(0, top + side - height)
    inside = array[max(0, top) : min(height, top + side), max(0, left) : min(width, left + side)]
    if inside.size == 0:
        raise Unusable("the face's square lies outside the picture")
    if before_x or after_x or before_y or after_y:
        inside = cv2.copyMakeBorder(inside, before_y, after_y, before_x, after_x, cv2.BORDER_REFLECT_101)
    if nearest:
        index = np.minimum((np.arange(size) + 0.5) * side / size, side - 1).astype(np.intp)
        return np.ascontiguousarray(inside[index][:, index])
    method = cv2.INTER_AREA if size < side else cv2.INTER_CUBIC
    return cv2.resize(inside, (size, size), interpolation=method)


def encode_jpeg(pixels_HW3: np.ndarray) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels_HW3), QUALITY, "RGB", "444", fastdct=False)


def encode_labels(labels_HW: np.ndarray) -> bytes:
    done, content = cv2.imencode(".png", labels_HW)
    assert done
    return content.tobytes()
