"""Pictures of a run folder as data URIs, no larger than the page can show."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

LARGE = 1800
SMALL = 520
# Below this a PNG goes in as it is; above, what is a photograph mostly is smaller as a JPEG.
KEEP_PNG = 200_000
EARLIER = 6


@dataclass(frozen=True)
class EmbeddedPicture:
    """`width` is that of the file: the page does not blow it up beyond a factor."""

    uri: str
    width: int
    height: int


def embed(path: Path, limit: int) -> EmbeddedPicture:
    """The picture at most `limit` pixels wide. Raises OSError or ValueError when it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path.name} is too large: {error}") from error
    if picture.width > limit:
        height = max(1, round(picture.height * limit / picture.width))
        picture = picture.resize((limit, height), Image.Resampling.LANCZOS)
    kind, data = _encode(picture)
    text = base64.b64encode(data).decode("ascii")
    return EmbeddedPicture(f"data:image/{kind};base64,{text}", picture.width, picture.height)


def evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` indices of `count`, evenly spread, first and last among them."""
    if count <= wanted:
        return list(range(count))
    return [round(index * (count - 1) / (wanted - 1)) for index in range(wanted)]


def _encode(picture: Image.Image) -> tuple[str, bytes]:
    png = io.BytesIO()
    picture.save(png, "PNG", optimize=True)
    if png.tell() <= KEEP_PNG:
        return "png", png.getvalue()
    jpeg = io.BytesIO()
    # Full colour resolution: label maps have sharp coloured edges.
    picture.save(jpeg, "JPEG", quality=90, subsampling=0, optimize=True)
    return ("jpeg", jpeg.getvalue()) if jpeg.tell() < png.tell() else ("png", png.getvalue())
