"""What a shard stores of one sample: its picture (cut or as it is), its label map and its json."""

from __future__ import annotations

from typing import Any

from collagan_dist.contract import FACE_SQUARE, MARGIN, Sample
from collagan_dist.data import picture, wire
from collagan_dist.data.picture import MIN_FACE, Unusable
from collagan_dist.data.square import face_square, to_stored, whole_pixels


def members(sample: Sample, store: str, size: int) -> dict[str, bytes]:
    """The files of one sample as shards hold them. Raises Unusable, or DataError for its label map."""
    image = picture.read_picture(sample.path)
    pixels, points = image.pixels_HW3, sample.landmarks
    height, width = pixels.shape[:2]
    _check_landmarks(points, width, height)
    labels = picture.read_labels(sample.labels, (height, width)) if sample.labels else None
    meta: dict[str, Any] = {"source": sample.source}
    if store == "crop":
        assert points is not None
        square = face_square(points).scaled(MARGIN)
        pixels = picture.cut(pixels, square, size)
        labels = picture.cut(labels, square, size, nearest=True) if labels is not None else None
        stored: Any = to_stored(points, *whole_pixels(square), size)
        jpeg, width, height = picture.encode_jpeg(pixels), size, size
    else:
        stored = [list(p) for p in points] if points is not None else None
        jpeg = image.jpeg or picture.encode_jpeg(pixels)
        if image.jpeg is None:
            meta["reencoded"] = True
    meta |= {"landmarks": stored, "width": width, "height": height}
    if sample.identity is not None:
        meta["identity"] = sample.identity
    result = {"jpg": jpeg, "json": wire.encode_meta(meta)}
    if labels is not None:
        result["seg.png"] = picture.encode_labels(labels)
    return result


def _check_landmarks(points: Any, width: int, height: int) -> None:
    if points is None:
        return
    if not all(-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5 for x, y in points):
        raise Unusable(f"a landmark lies outside the {width}x{height} picture")
    if (side := face_square(points).side) < MIN_FACE:
        raise Unusable(
            f"undersized: the face's square has {side:.0f} pixels ({FACE_SQUARE} x the landmarks' extent), needs {MIN_FACE}"
        )
