"""One picture from disk or from an archive: judged by its header, decoded in full, cut to what a shard stores.

What is converted: grey and palette pictures become RGB, 16-bit colours keep their higher byte. What is refused: CMYK, 16-bit
grey, and transparency of any kind, since nothing says what lies behind it. Pixels are taken as they are stored: annotations
mean those, so an EXIF orientation turns nothing.
"""

from __future__ import annotations

import errno
import io
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from collagan_dist.data.face_square import Square, pixel_box
from collagan_dist.data.readers import archives
from collagan_dist.errors import DataError
from collagan_dist.types import File

QUALITY = 95
MAX_PIXELS = 64_000_000  # of one picture: a decompression bomb is refused from its header
MIN_FACE = 32  # pixels: side of the smallest face square that is worth learning from

# Of the machine or its storage, not of a picture: nothing is left out for these.
_TROUBLES = (errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT)
_FORMATS = ("PNG", "BMP", "WEBP", "TIFF")


class UnusablePicture(Exception):
    """A picture for quarantine; the text is the reason."""


@dataclass(frozen=True)
class Picture:
    """A picture whose header is in order. Nothing is decoded before `pixels_HW3` or `as_jpeg` asks for it."""

    content: bytes
    width: int
    height: int
    colours: str | None  # of a JPEG: YCbCr, Gray or RGB

    @cached_property
    def pixels_HW3(self) -> np.ndarray:
        """uint8 RGB. Raises UnusablePicture unless every byte decodes."""
        return _decode_jpeg(self.content) if self.colours else _decode_other(self.content)

    def as_jpeg(self) -> tuple[bytes, bool]:
        """JPEG bytes that all readers understand alike, and whether they had to be made anew.

        Raises UnusablePicture unless every byte decodes.
        """
        if not self._is_plain_jpeg():
            return encode_jpeg(self.pixels_HW3), True
        # At an eighth of the size all entropy-coded data is still decoded: the verdict is that of the full size at 1.6 times
        # its speed (tests/data/test_picture.py holds it to that).
        _decode_jpeg(self.content, min_height=1, min_width=1)
        return self.content, False

    def _is_plain_jpeg(self) -> bool:
        # Readers disagree about an EXIF orientation.
        head, end = self.content[:65536], self.content.rstrip(b"\0")
        return self.colours == "YCbCr" and b"Exif\0\0" not in head and end.endswith(b"\xff\xd9")


def read_picture(file: File) -> Picture:
    """The picture of a file, judged by its header. Raises UnusablePicture."""
    try:
        content = archives.read(file)
    except OSError as error:
        if error.errno in _TROUBLES or (error.errno == errno.EIO and isinstance(file, str)):
            raise DataError(
                f"{file}: cannot be read ({error.strerror}); the same command continues when it can"
            ) from None
        raise UnusablePicture(f"cannot be read: {error.strerror}") from None
    if not content:
        raise UnusablePicture("is an empty file")
    picture = _jpeg_header(content) if content[:2] == b"\xff\xd8" else _other_header(content)
    _check_size(picture.width, picture.height)
    return picture


def _jpeg_header(content: bytes) -> Picture:
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError as error:
        raise UnusablePicture(f"damaged JPEG: {error}") from None
    if colours not in ("YCbCr", "Gray", "RGB"):
        raise UnusablePicture(f"wrong mode {colours}, needs RGB")
    return Picture(content, width, height, colours)


def _decode_jpeg(content: bytes, **scale: int) -> np.ndarray:
    try:
        return simplejpeg.decode_jpeg(content, "RGB", strict=True, **scale)
    except ValueError as error:
        raise UnusablePicture(f"damaged JPEG: {error}") from None


def _other_header(content: bytes) -> Picture:
    with _opened(content) as image:
        if image.mode not in ("RGB", "L", "P"):
            raise UnusablePicture(f"wrong mode {image.mode}, needs RGB")
        if "transparency" in image.info:
            raise UnusablePicture(f"wrong mode {image.mode} with transparency, needs RGB")
        return Picture(content, *image.size, None)


def _decode_other(content: bytes) -> np.ndarray:
    with _opened(content) as image:
        try:
            return np.array(image.convert("RGB"))
        except Exception:  # Pillow's decoders raise whatever their libraries meet
            raise UnusablePicture("damaged, or not a picture") from None


def _opened(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=_FORMATS)
    except Image.DecompressionBombError:
        raise UnusablePicture("a decompression bomb, from its header") from None
    except Exception:
        raise UnusablePicture("damaged, or not a picture") from None


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnusablePicture(f"{width}x{height} pixels are more than {MAX_PIXELS}: a decompression bomb")
    if min(width, height) < MIN_FACE:
        raise UnusablePicture(f"{width}x{height} pixels are smaller than {MIN_FACE}x{MIN_FACE}")


def crop_square(array: np.ndarray, square: Square, size: int, nearest: bool = False) -> np.ndarray:
    """The square of a picture or label map, resized to (size, size); reflected where it leaves the picture."""
    left, top, side = pixel_box(square)
    height, width = array.shape[:2]
    before_x, after_x = max(0, -left), max(0, left + side - width)
    before_y, after_y = max(0, -top), max(0, top + side - height)
    inside = array[max(0, top) : min(height, top + side), max(0, left) : min(width, left + side)]
    if inside.size == 0:
        raise UnusablePicture("the face's square lies outside the picture")
    if before_x or after_x or before_y or after_y:
        inside = cv2.copyMakeBorder(inside, before_y, after_y, before_x, after_x, cv2.BORDER_REFLECT_101)
    if nearest:
        index = np.minimum((np.arange(size) + 0.5) * side / size, side - 1).astype(np.intp)
        return np.ascontiguousarray(inside[index][:, index])
    method = cv2.INTER_AREA if size < side else cv2.INTER_CUBIC
    return cv2.resize(inside, (size, size), interpolation=method)


def encode_jpeg(pixels_HW3: np.ndarray) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels_HW3), QUALITY, "RGB", "444", fastdct=False)


def encode_label_map(labels_HW: np.ndarray) -> bytes:
    done, content = cv2.imencode(".png", labels_HW)
    assert done
    return content.tobytes()
