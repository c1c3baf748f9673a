"""Picture files as data URIs of the page, no larger than it can show."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from collagan_dist.types import MAX_PIXELS

if TYPE_CHECKING:
    from PIL import Image

# Widths in pixels of pictures across the page and of those beside one another.
LARGE = 1800
SMALL = 520
# Below this a PNG is embedded as it is; above, a photograph is mostly smaller as a JPEG.
_KEEP_PNG_BYTES = 200_000


@dataclass(frozen=True)
class EmbeddedPicture:
    """A picture as a data URI with its size in pixels."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Figure:
    """A picture with its text for screen readers, its caption and the headings of its columns."""

    picture: EmbeddedPicture
    alt: str
    caption: str
    columns: tuple[str, ...] = ()


def embed(path: Path, max_width: int) -> EmbeddedPicture:
    """Return the picture at most `max_width` pixels wide. Raises OSError or ValueError when it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise ValueError(
                    f"{path.name} is too large: {opened.width}x{opened.height} pixels, more than {MAX_PIXELS}"
                )
            # Read here: a truncated file fails when its pixels are read, not when it is opened.
            picture = opened.convert("RGB")
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path.name} is too large: {error}") from error
    if picture.width > max_width:
        height = max(1, round(picture.height * max_width / picture.width))
        picture = picture.resize((max_width, height), Image.Resampling.LANCZOS)
    kind, data = _encode(picture)
    # Inside the page: one file can be sent by mail or copied from a cluster.
    text = base64.b64encode(data).decode("ascii")
    return EmbeddedPicture(f"data:image/{kind};base64,{text}", picture.width, picture.height)


def _encode(picture: Image.Image) -> tuple[str, bytes]:
    png = io.BytesIO()
    picture.save(png, "PNG", optimize=True)
    if png.tell() <= _KEEP_PNG_BYTES:
        return "png", png.getvalue()
    jpeg = io.BytesIO()
    # No chroma subsampling: label maps have sharp coloured edges.
    picture.save(jpeg, "JPEG", quality=90, subsampling=0, optimize=True)
    return ("jpeg", jpeg.getvalue()) if jpeg.tell() < png.tell() else ("png", png.getvalue())
