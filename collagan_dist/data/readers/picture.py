"""Read one picture: check its header, decode it, crop a square of it, and encode what a shard stores.

Converted: grey and palette pictures become RGB, 16-bit colours keep their higher byte, colours of an embedded profile become
sRGB. Refused: CMYK, 16-bit grey, several frames, and any transparency, since nothing says what is behind it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
import simplejpeg
from PIL import Image, TiffImagePlugin

from collagan_dist.data.face_square import Square, pixel_box
from collagan_dist.data.readers import archives
from collagan_dist.data.readers.colour_profile import STRIP_ROWS, is_srgb, to_srgb
from collagan_dist.data.readers.picture_format import FORMATS, SIGNATURE_BYTES, picture_format, unreadable
from collagan_dist.errors import DataError
from collagan_dist.types import MAX_PIXELS, File

QUALITY = 95  # of the JPEGs that packing encodes
# Of all pictures, this share may be unusable, and MAX_BAD_COUNT in any case: a few damaged ones must not stop a command.
MAX_BAD, MAX_BAD_COUNT = 0.001, 10
MIN_FACE_PIXELS = 32  # side of the smallest face square that is worth training on

_EXIF_ORIENTATION = 0x0112
_PNG_DEPTH_AT = 24  # byte of a PNG: its bits a channel


class UnusablePicture(Exception):
    """A picture for quarantine; the text is the reason."""


def check_bad_count(bad: int, total: int, max_bad: float, note: str, things: str = "pictures") -> None:
    """Raise DataError if more `things` than MAX_BAD_COUNT and the share `max_bad` are unusable; `note` says where they are named."""
    if bad > max(MAX_BAD_COUNT, max_bad * total):
        raise DataError(
            f"{bad} of {total} {things} are unusable, more than --max-bad {max_bad:g} allows; "
            f"{note}; repair them or raise --max-bad, and run the same command"
        )


@dataclass(frozen=True)
class Picture:
    """A picture whose header is valid. It is decoded when its pixels or `as_jpeg` are asked for.

    `width` and `height` are those of its pixels: as stored, or turned upright by `orientation` (EXIF's 1 to 8) where the reader
    was asked for that; else `orientation` is 1.
    """

    content: bytes
    width: int
    height: int
    colours: str | None  # of a JPEG: YCbCr, Gray or RGB; None for other formats
    orientation: int = 1
    profile: bytes | None = None  # ICC
    depth: int = 8  # bits a channel of the file; pixels have the higher 8

    @cached_property
    def pixels_HW3(self) -> np.ndarray:
        """Decode to uint8 RGB in sRGB. Raises UnusablePicture unless every byte decodes."""
        return to_srgb(self.unconverted_HW3, self.profile)

    @cached_property
    def unconverted_HW3(self) -> np.ndarray:
        """Decode to uint8 RGB in the colours of the picture's profile. Raises UnusablePicture unless every byte decodes."""
        pixels = _decode_jpeg(self.content) if self.colours else self._decode_other()
        return turn_upright(pixels, self.orientation)

    def _decode_other(self) -> np.ndarray:
        image = _load_other(self.content)
        vars(self)["content"] = b""  # not needed any more: file, Pillow's pixels and ours have 200 MB each
        return _to_rgb(image)

    def as_jpeg(self) -> tuple[bytes, bool]:
        """Return JPEG bytes that all decoders read alike, and whether they are re-encoded.

        Raises UnusablePicture unless every byte decodes.
        """
        if not self._is_plain_jpeg():
            return encode_jpeg(self.pixels_HW3), True
        self.check()
        return self.content, False

    def check(self) -> None:
        """Raise UnusablePicture unless every byte decodes."""
        if self.colours is None:
            _ = self.unconverted_HW3
            return
        # At an eighth of the size all entropy-coded data is still decoded, so the result is that of the full size
        # at 1.6 times its speed (tests/data/readers/test_picture.py holds it to that).
        _decode_jpeg(self.content, min_height=1, min_width=1)

    def _is_plain_jpeg(self) -> bool:
        # Decoders disagree about an EXIF orientation, and none of training's knows profiles.
        ends = self.content.rstrip(b"\0").endswith(b"\xff\xd9")
        plain = self.colours == "YCbCr" and b"Exif\0\0" not in self.content and ends
        return plain and (self.profile is None or is_srgb(self.profile))


def read_picture(file: File, upright: bool = False) -> Picture:
    """Read a file and check its header. Raises UnusablePicture, or DataError where the storage fails.

    `upright`: turn it as its EXIF orientation says. Not where annotations mean the stored pixels.
    """
    content = read_content(file)
    jpeg = picture_format(content[:SIGNATURE_BYTES]) == "JPEG"
    picture = _read_jpeg_header(content) if jpeg else _read_other_header(content)
    _check_size(picture.width, picture.height)
    if upright and (orientation := _orientation(content, jpeg)) > 1:
        size = (picture.height, picture.width) if orientation > 4 else (picture.width, picture.height)
        return replace(picture, width=size[0], height=size[1], orientation=orientation)
    return picture


def turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return an (H, W, ...) picture as a viewer shows it, by EXIF's orientation 1 to 8."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    # What remains after the transposition is a mirror in x, in y, or in both.
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def read_content(file: File) -> bytes:
    """Return the bytes of a picture's file. Raises UnusablePicture, or DataError where the storage fails."""
    try:
        content = archives.read_file(file)
    except OSError as error:
        raise UnusablePicture(f"cannot be read: {error.strerror}") from None
    if not content:
        raise UnusablePicture("is an empty file")
    return content


def check_pixels(width: int, height: int) -> None:
    """Raise UnusablePicture for a size, read from a header, that would fill the memory."""
    if width * height > MAX_PIXELS:
        raise UnusablePicture(f"{width}x{height} pixels are more than {MAX_PIXELS}: a decompression bomb")


def check_one_frame(image: Image.Image) -> None:
    if getattr(image, "is_animated", False):  # counting frames reads no pixels
        raise UnusablePicture("has several frames; save one of them as a picture of its own")


def _check_size(width: int, height: int) -> None:
    check_pixels(width, height)
    if min(width, height) < MIN_FACE_PIXELS:
        raise UnusablePicture(f"{width}x{height} pixels are smaller than {MIN_FACE_PIXELS}x{MIN_FACE_PIXELS}")


def _read_jpeg_header(content: bytes) -> Picture:
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError as error:
        raise UnusablePicture(f"damaged JPEG: {error}") from None
    if colours not in ("YCbCr", "Gray", "RGB"):
        raise UnusablePicture(f"wrong mode {colours}, needs RGB")
    profile = None
    # Found before it is parsed: most pictures have no profile, and Pillow's header takes a tenth of packing's time.
    if b"ICC_PROFILE\0" in content:
        with suppress(Exception), Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            profile = icc_profile(image)
    return Picture(content, width, height, colours, profile=profile)


def _decode_jpeg(content: bytes, **scale: int) -> np.ndarray:
    try:
        return simplejpeg.decode_jpeg(content, "RGB", strict=True, **scale)
    except ValueError as error:
        raise UnusablePicture(f"damaged JPEG: {error}") from None


def _read_other_header(content: bytes) -> Picture:
    with open_picture(content) as image:
        _check_size(*image.size)
        if image.mode not in ("RGB", "L", "P", "RGBA", "LA", "PA"):
            raise UnusablePicture(f"wrong mode {image.mode}, needs RGB")
        check_one_frame(image)
        return Picture(content, *image.size, None, profile=icc_profile(image), depth=_depth(image, content))


def _depth(image: Image.Image, content: bytes) -> int:
    """Return the bits a channel of an opened PNG or TIFF, which Pillow does not keep; 8 for others.

    HEIF and AVIF of more bits are decoded to 8, as most viewers show them.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (8,)))
    return content[_PNG_DEPTH_AT] if image.format == "PNG" else 8


def _load_other(content: bytes) -> Image.Image:
    with open_picture(content) as image:
        return load_pixels(image, content)


def load_pixels(image: Image.Image, content: bytes) -> Image.Image:
    """Return an opened picture with its pixels decoded. Raises UnusablePicture."""
    try:
        if image.format == "WEBP":
            # Pillow reads it as an animation, by several copies of its canvas.
            pixels = cv2.imdecode(
                np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
            )
            if pixels is None:
                raise ValueError
            swap = cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
            return Image.fromarray(cv2.cvtColor(pixels, swap, dst=pixels))
        if image.format == "TIFF":
            # Of this format alone Pillow would turn the pixels, in another 200 MB. The size is set in `open_picture`.
            image.getexif().pop(_EXIF_ORIENTATION, None)
        image.load()
        return image
    except Exception:  # decoders raise whatever their libraries meet
        raise UnusablePicture("damaged, or not a picture") from None


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Return the RGB pixels of a decoded picture. Raises UnusablePicture for one that is transparent anywhere."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for rows, strip in strips(image):
        # Opaque everywhere says the same as no alpha.
        if strip.has_transparency_data and np.asarray(strip.convert("RGBA"))[..., 3].min() < 255:
            raise UnusablePicture(f"wrong mode {image.mode} with transparency, needs RGB")
        pixels[rows] = np.asarray(strip.convert("RGB"))
    return pixels


def strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Yield a decoded picture in strips of rows: as a whole, each conversion would take another 200 MB or more."""
    for top in range(0, image.height, STRIP_ROWS):
        bottom = min(top + STRIP_ROWS, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def _orientation(content: bytes, jpeg: bool) -> int:
    if jpeg and b"Exif\0\0" not in content:
        return 1
    with open_picture(content) as image:
        return exif_orientation(image)


def exif_orientation(image: Image.Image) -> int:
    """Return EXIF's orientation, 1 to 8; 1 where there is none or it cannot be read."""
    value = None
    with suppress(Exception):  # Pillow raises whatever damaged EXIF leads to
        value = image.getexif().get(_EXIF_ORIENTATION)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


@contextmanager
def open_png(file: File, what: str, mend: str) -> Iterator[Image.Image]:
    """Open a PNG of annotations. Raises FileNotFoundError, and DataError also for what the block meets while decoding."""
    try:
        with Image.open(io.BytesIO(archives.read_file(file)), formats=("PNG",)) as image:
            yield image
    except (FileNotFoundError, DataError):
        raise
    except Exception as error:  # Pillow's decoders raise whatever their libraries meet
        raise DataError(f"{file}: {what} is damaged, or no PNG ({error}); {mend}") from None


def icc_profile(image: Image.Image) -> bytes | None:
    """Return the embedded colour profile; None without one."""
    found = image.info.get("icc_profile")
    return found if isinstance(found, bytes) else None  # a TIFF may have numbers in its place


def open_picture(content: bytes) -> Image.Image:
    """Open a picture of a format that is read here; pixels are not decoded yet. Raises UnusablePicture."""
    form = picture_format(content[:SIGNATURE_BYTES])
    if form is not None and form not in FORMATS:
        raise UnusablePicture(unreadable(form))
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            # As stored, like all others: Pillow gives the size of the turned picture.
            image._size = image.tag_v2[TiffImagePlugin.IMAGEWIDTH], image.tag_v2[TiffImagePlugin.IMAGELENGTH]
        return image
    except Image.DecompressionBombError:
        raise UnusablePicture("is a decompression bomb, from its header") from None
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
    if nearest:
        return resize_nearest(inside, (size, size))
    # INTER_AREA averages, so shrinking does not alias; it cannot enlarge smoothly.
    method = cv2.INTER_AREA if size < side else cv2.INTER_CUBIC
    return cv2.resize(inside, (size, size), interpolation=method)


def resize_nearest(array_HW: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize a label map or a hole to (height, width): each pixel has the value at its centre."""
    # OpenCV's INTER_NEAREST maps the corners of pixels, and moves borders by up to half a pixel.
    sizes = zip(shape, array_HW.shape, strict=True)
    rows, columns = (((np.arange(new) + 0.5) * old / new).astype(np.intp) for new, old in sizes)
    return np.ascontiguousarray(array_HW[rows][:, columns])


def encode_jpeg(pixels_HW3: np.ndarray) -> bytes:
    # Without chroma subsampling: a crop of 176 pixels has little resolution to lose.
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels_HW3), QUALITY, "RGB", "444", fastdct=False)


# Rows as they are, not their differences: of a label map they compress better, and data/shards/label_png.py has only to inflate them.
_LABEL_PNG = (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE, cv2.IMWRITE_PNG_COMPRESSION, 3)


def encode_label_map(labels_HW: np.ndarray) -> bytes:
    done, content = cv2.imencode(".png", labels_HW, _LABEL_PNG)
    assert done
    return content.tobytes()
