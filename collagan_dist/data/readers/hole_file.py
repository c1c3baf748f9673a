"""Read a hole from a picture file: white or nonzero where the face is to be completed; or from a picture's own transparency.

A file whose meaning is in doubt is refused: completing the wrong pixels would look like a result.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from collagan_dist.data.readers.colour_profile import STRIP_ROWS
from collagan_dist.data.readers.picture import (
    Picture,
    UnusablePicture,
    check_one_frame,
    check_pixels,
    exif_orientation,
    load_pixels,
    open_picture,
    read_content,
    strips,
    turn_upright,
)
from collagan_dist.errors import DataError
from collagan_dist.types import File

_NEEDS = "a hole is a picture in black and white, white where the face is to be completed"
# Between these shares of the range a pixel is neither black nor white. Scaling and JPEG leave some such pixels at the border.
_GREY_FROM, _GREY_TO, _MAX_GREY = 0.25, 0.75, 0.2
_JPEG_LEVELS = 8


def read_hole(file: File) -> np.ndarray:
    """Return the (H, W) hole of a file, true inside, turned upright by its EXIF orientation. Raises DataError."""
    try:
        content = read_content(file)
        with open_picture(content) as image:
            check_pixels(*image.size)
            check_one_frame(image)
            orientation = exif_orientation(image)  # before its pixels are decoded, which may drop it
            return turn_upright(_decode(load_pixels(image, content)), orientation)
    except UnusablePicture as error:
        raise DataError(f"{file}: cannot be used as a hole: {error}; {_NEEDS}") from None


def read_painted(picture: Picture) -> tuple[np.ndarray, np.ndarray, bytes | None]:
    """Return the (H, W, 3) uint8 pixels of a picture, the (H, W) hole of its transparent pixels, and its ICC profile.

    It is turned as the picture says. Every pixel that is not opaque is hole: nothing says what is behind it. Raises
    UnusablePicture.
    """
    if picture.colours:
        raise UnusablePicture("is a JPEG, which has no transparency that could be a hole; save it as PNG")
    with open_picture(picture.content) as opened:
        image = load_pixels(opened, picture.content)
    pixels_HW3 = np.empty((image.height, image.width, 3), np.uint8)
    faded_HW = np.zeros((image.height, image.width), np.uint8)
    for rows, strip in strips(image):
        rgba = np.asarray(strip.convert("RGBA"))
        pixels_HW3[rows] = rgba[..., :3]
        faded_HW[rows] = 255 - rgba[..., 3]
    if faded_HW.any():
        _from_grey(faded_HW)  # refuses what is faint everywhere, as a watermark is
    return (
        turn_upright(pixels_HW3, picture.orientation),
        turn_upright(faded_HW > 0, picture.orientation),
        picture.profile,
    )


def _decode(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        return _from_grey(_to_grey16(image))
    return np.asarray(image) if image.mode == "1" else _from_colours(image)


def _to_grey16(image: Image.Image) -> np.ndarray:
    levels_HW = np.empty((image.height, image.width), np.uint16)
    for rows, strip in strips(image):
        levels = np.asarray(strip)
        # Written this way NaN is refused too.
        if not (levels.min() >= 0 and levels.max() <= 65535) or (levels != levels.astype(np.uint16)).any():
            raise UnusablePicture("has values that are no 16-bit grey")
        levels_HW[rows] = levels
    return levels_HW


def _from_colours(image: Image.Image) -> np.ndarray:
    high_HW, seen_HW = np.empty((image.height, image.width), np.uint8), np.empty((image.height, image.width), bool)
    spread, white, colour, one_colour = 0, False, None, True
    for rows, strip in strips(image):
        # CMYK and others become RGBA by way of RGB alone.
        rgba = np.asarray((strip if strip.has_transparency_data else strip.convert("RGB")).convert("RGBA"))
        rgb, low, high = rgba[..., :3], rgba[..., :3].min(-1), rgba[..., :3].max(-1)
        high_HW[rows], seen_HW[rows] = high, rgba[..., 3] > 127
        spread, white = max(spread, int((high - low).max())), white or bool((low > 127)[seen_HW[rows]].any())
        coloured = rgb[high > 0]
        colour = coloured[0] if colour is None and len(coloured) else colour
        one_colour = one_colour and bool((coloured == colour).all())
    if not seen_HW.all() and not white:
        raise UnusablePicture("is transparent in part, and what is seen of it is not white")
    # JPEG leaves a few levels between the channels of a grey picture.
    if spread <= 2 * _JPEG_LEVELS:
        hole_HW = _from_grey(high_HW)
    # One colour on black marks as clearly as white does.
    elif one_colour and not high_HW.all():
        hole_HW = high_HW > 0
    else:
        raise UnusablePicture("has colours")
    # White that is seen is the hole; what is transparent is not.
    return hole_HW & seen_HW


def _from_grey(levels_HW: np.ndarray) -> np.ndarray:
    """Return where 8- or 16-bit levels are white. Raises UnusablePicture unless nearly all are black or white."""
    top = np.iinfo(levels_HW.dtype).max
    counts = np.zeros(top + 1, np.int64)
    # In strips of rows: bincount takes 8 bytes a pixel.
    for first in range(0, len(levels_HW), STRIP_ROWS):
        counts += np.bincount(levels_HW[first : first + STRIP_ROWS].ravel(), minlength=top + 1)
    values = np.flatnonzero(counts)
    # Two values with 0 are a mask, whatever the other one is: 0 and 1, or 0 and 255 in 16 bits.
    if len(values) == 2 and values[0] == 0:
        return levels_HW > 0
    grey = counts[int(_GREY_FROM * top) : int(_GREY_TO * top) + 1].sum() / levels_HW.size
    if grey > _MAX_GREY:
        raise UnusablePicture(f"is grey, neither black nor white, in {grey:.0%} of its pixels")
    if len(values) == 1 and 0 < values[0] <= _GREY_FROM * top:
        raise UnusablePicture(f"is {values[0]} everywhere, which may mean all of it or nothing")
    if len(values) > 2 and values[-1] <= top // 2:  # a label map, or a hole that was darkened
        raise UnusablePicture(f"has {len(values)} levels and no white: its brightest pixel is {values[-1]} of {top}")
    return levels_HW > top // 2
