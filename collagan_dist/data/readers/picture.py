"""Read one picture: check its header, decode it, crop a square of it, and encode what a shard stores.

Converted: grey and palette pictures become RGB; 16-bit colours keep their higher byte. Refused: CMYK, 16-bit grey and
any transparency, since nothing says what is behind it.
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

QUALITY = 95  # of the JPEGs that packing encodes
MAX_PIXELS = 64_000_000  # of one picture: a decompression bomb is refused from its header
MIN_FACE_PIXELS = 32  # side of the smallest face square that is worth training on

# Errors of the machine or its storage. Packing stops for them: quarantine is for pictures that stay unusable.
_MACHINE_ERRORS = (errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT)
_FORMATS = ("PNG", "BMP", "WEBP", "TIFF")


class UnusablePicture(Exception):
    """A picture for quarantine; the text is the reason."""


@dataclass(frozen=True)
class Picture:
    """A picture whose header is valid. It is decoded when `pixels_HW3` or `as_jpeg` is asked for."""

    content: bytes
    width: int
    height: int
    colours: str | None  # of a JPEG: YCbCr, Gray or RGB; None for other formats

    @cached_property
    def pixels_HW3(self) -> np.ndarray:
        """Decode to uint8 RGB. Raises UnusablePicture unless every byte decodes."""
        # As stored: annotations mean these pixels, so an EXIF orientation is ignored.
        return _decode_jpeg(self.content) if self.colours else _decode_other(self.content)

    def as_jpeg(self) -> tuple[bytes, bool]:
        """Return JPEG bytes that all decoders read alike, and whether they are re-encoded.

        Raises UnusablePicture unless every byte decodes.
        """
        if not self._is_plain_jpeg():
            return encode_jpeg(self.pixels_HW3), True
        # At an eighth of the size all entropy-coded data is still decoded, so the result is that of the full size
        # at 1.6 times its speed (tests/data/readers/test_picture.py holds it to that).
        _decode_jpeg(self.content, min_height=1, min_width=1)
        return self.content, False

    def _is_plain_jpeg(self) -> bool:
        # Decoders disagree about an EXIF orientation.
        head, end = self.content[:65536], self.content.rstrip(b"\0")
        return self.colours == "YCbCr" and b"Exif\0\0" not in head and end.endswith(b"\xff\xd9")


def read_picture(file: File) -> Picture:
    """Read a file and check its header. Raises UnusablePicture, or DataError where the storage fails."""
    try:
        content = archives.read_file(file)
    except OSError as error:
        # EIO of a file on disk is a failing disk; EIO of an archive's member is damage of that member.
        if error.errno in _MACHINE_ERRORS or (error.errno == errno.EIO and isinstance(file, str)):
            raise DataError(
                f"{file}: cannot be read ({error.strerror}); the same command continues when it can"
            ) from None
        raise UnusablePicture(f"cannot be read: {error.strerror}") from None
    if not content:
        raise UnusablePicture("is an empty file")
    picture = _read_jpeg_header(content) if content[:2] == b"\xff\xd8" else _read_other_header(content)
    width, height = picture.width, picture.height
    if width * height > MAX_PIXELS:
        raise UnusablePicture(f"{width}x{height} pixels are more than {MAX_PIXELS}: a decompression bomb")
    if min(width, height) < MIN_FACE_PIXELS:
        raise UnusablePicture(f"{width}x{height} pixels are smaller than {MIN_FACE_PIXELS}x{MIN_FACE_PIXELS}")
    return picture


def _read_jpeg_header(content: bytes) -> Picture:
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


def _read_other_header(content: bytes) -> Picture:
    with _open_other(content) as image:
        if image.mode not in ("RGB", "L", "P"):
            raise UnusablePicture(f"wrong mode {image.mode}, needs RGB")
        if "transparency" in image.info:
            raise UnusablePicture(f"wrong mode {image.mode} with transparency, needs RGB")
        return Picture(content, *image.size, None)


def _decode_other(content: bytes) -> np.ndarray:
    with _open_other(content) as image:
        try:
            return np.array(image.convert("RGB"))
        except Exception:  # Pillow's decoders raise whatever their libraries meet
            raise UnusablePicture("damaged, or not a picture") from None


def _open_other(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=_FORMATS)
    except Image.DecompressionBombError:
        raise UnusablePicture("a decompression bomb, from its header") from None
    except Exception:
        raise UnusablePicture("damaged, or not a picture") from None


def crop_square(array: np.ndarray, square: Square, size: int, nearest: bool = False) -> np.ndarray:
    """Crop the square of a picture or label map and resize it to (size, size).

    Where the square leaves the picture, the picture is reflected. Raises UnusablePicture for a square that is all outside.
    """
    left, top, side = pixel_box(square)
    height, width = array.shape[:2]
    before_x, after_x = max(0, -left), max(0, left + side - width)
    before_y, after_y = max(0, -top), max(0, top + side - height)
    inside = array[max(0, top) : min(height, top + side), max(0, left) : min(width, left + side)]
    if inside.size == 0:
        raise UnusablePicture("the face's square lies outside the picture")
    if before_x or after_x or before_y or after_y:
        inside = cv2.copyMakeBorder(inside, before_y, after_y, before_x, after_x, cv2.BORDER_REFLECT_101)
    if nearest:  # labels, by pixel centres, unlike OpenCV's INTER_NEAREST
        index = np.minimum((np.arange(size) + 0.5) * side / size, side - 1).astype(np.intp)
        return np.ascontiguousarray(inside[index][:, index])
    # INTER_AREA averages, so shrinking does not alias; it cannot enlarge smoothly.
    method = cv2.INTER_AREA if size < side else cv2.INTER_CUBIC
    return cv2.resize(inside, (size, size), interpolation=method)


def encode_jpeg(pixels_HW3: np.ndarray) -> bytes:
    # Without chroma subsampling: a crop of 176 pixels has little resolution to lose.
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels_HW3), QUALITY, "RGB", "444", fastdct=False)


def encode_label_map(labels_HW: np.ndarray) -> bytes:
    done, content = cv2.imencode(".png", labels_HW)
    assert done
    return content.tobytes()
