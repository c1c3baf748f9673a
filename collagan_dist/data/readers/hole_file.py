"""Read a hole from a picture file: white or nonzero where the face is to be completed.

A file whose meaning is in doubt is refused: completing the wrong pixels would look like a result.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from collagan_dist.data.readers.picture import (
    UnusablePicture,
    check_one_frame,
    check_pixels,
    open_picture,
    orientation_left,
    read_content,
    turn_upright,
)
from collagan_dist.errors import DataError

_NEEDS = "a hole is a picture in black and white, white where the face is to be completed"
# Between these shares of the range a pixel is neither black nor white. Scaling and JPEG leave some such pixels at the border.
_GREY_FROM, _GREY_TO, _MAX_GREY = 0.25, 0.75, 0.2
_JPEG_LEVELS = 8


def read_hole(path: str) -> np.ndarray:
    """Return the (H, W) hole of a file, true inside, turned upright by its EXIF orientation. Raises DataError."""
    try:
        with open_picture(read_content(path)) as image:
            check_pixels(*image.size)
            check_one_frame(image)
            orientation = orientation_left(image)
            return turn_upright(_decode(image), orientation)
    except UnusablePicture as error:
        raise DataError(f"{path}: cannot be used as a hole: {error}; {_NEEDS}") from None


def _decode(image: Image.Image) -> np.ndarray:
    try:
        image.load()
    except Exception:  # Pillow's decoders raise whatever their libraries meet
        raise UnusablePicture("is damaged") from None
    if image.mode.startswith("I") or image.mode == "F":
        levels = np.asarray(image)
        if levels.min() < 0 or levels.max() > 65535 or (levels != levels.astype(np.uint16)).any():
            raise UnusablePicture("has values that are no 16-bit grey")
        return _from_grey(levels.astype(np.uint16))
    if image.mode == "1":
        return np.asarray(image)
    if not image.has_transparency_data:
        return _from_colours(np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB")))
    rgba = np.asarray(image.convert("RGBA"))
    seen = rgba[..., 3] > 127
    if not seen.all() and not (rgba[..., :3].min(-1) > 127)[seen].any():
        raise UnusablePicture("is transparent in part, and what is seen of it is not white")
    # White that is seen is the hole; what is transparent is not.
    return _from_colours(rgba[..., :3]) & seen


def _from_colours(pixels_HW3: np.ndarray) -> np.ndarray:
    if pixels_HW3.ndim == 2:
        return _from_grey(pixels_HW3)
    low, high = pixels_HW3.min(-1), pixels_HW3.max(-1)
    # JPEG leaves a few levels between the channels of a grey picture.
    if int((high - low).max()) <= 2 * _JPEG_LEVELS:
        return _from_grey(high)
    coloured = high > 0
    # One colour on black marks as clearly as white does.
    if not coloured.all() and ((pixels_HW3 == pixels_HW3[coloured][0]).all(-1) | ~coloured).all():
        return coloured
    raise UnusablePicture("has colours")


def _from_grey(levels_HW: np.ndarray) -> np.ndarray:
    """Return where 8- or 16-bit levels are white. Raises UnusablePicture unless nearly all are black or white."""
    top = np.iinfo(levels_HW.dtype).max
    counts = np.zeros(top + 1, np.int64)
    # In strips of rows: bincount takes 8 bytes a pixel.
    for first in range(0, len(levels_HW), 64):
        counts += np.bincount(levels_HW[first : first + 64].ravel(), minlength=top + 1)
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
