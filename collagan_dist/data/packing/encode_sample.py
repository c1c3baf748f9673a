"""What a shard stores of one sample: its picture (cut or as it is), its label map and its json."""

from __future__ import annotations

from typing import Any

import numpy as np

from collagan_dist.data.face_square import (
    Points,
    Square,
    pixel_box,
    points_to_crop,
    snap_to_pixels,
    square_from_label_map,
    square_from_landmarks,
    square_from_size,
)
from collagan_dist.data.readers import picture
from collagan_dist.data.readers.label_maps import read_label_map
from collagan_dist.data.readers.picture import MIN_FACE, Picture, UnusablePicture
from collagan_dist.data.shards import wire_format
from collagan_dist.types import CLASSES, MARGIN, Sample


def encode_sample(sample: Sample, store: str, size: int) -> dict[str, bytes]:
    """The files of one sample as shards hold them. Raises UnusablePicture, or DataError for its label map."""
    image = picture.read_picture(sample.path)
    return _crop(sample, image, size) if store == "crop" else _original(sample, image)


def _crop(sample: Sample, image: Picture, size: int) -> dict[str, bytes]:
    """The margin square around the face."""
    pixels = image.pixels_HW3
    square, labels = _annotations(sample, image)
    margin = square.scaled(MARGIN)
    points = points_to_crop(sample.landmarks, *pixel_box(margin), size) if sample.landmarks is not None else None
    labels = picture.crop_square(labels, margin, size, nearest=True) if labels is not None else None
    jpeg = picture.encode_jpeg(picture.crop_square(pixels, margin, size))
    return _files(sample, jpeg, labels, {"landmarks": points, "width": size, "height": size})


def _original(sample: Sample, image: Picture) -> dict[str, bytes]:
    """The picture as it is, and the square at which training looks."""
    jpeg, reencoded = image.as_jpeg()
    square, labels = _annotations(sample, image)
    meta: dict[str, Any] = {"landmarks": sample.landmarks, "width": image.width, "height": image.height}
    if sample.landmarks is None:
        square = snap_to_pixels(square)
        meta["square"] = [round(square.x, 3), round(square.y, 3), round(square.side, 3)]
    if reencoded:
        meta["reencoded"] = True
    return _files(sample, jpeg, labels, meta)


def _files(sample: Sample, jpeg: bytes, labels: np.ndarray | None, meta: dict[str, Any]) -> dict[str, bytes]:
    meta |= {"source": sample.source}
    if sample.identity is not None:
        meta["identity"] = sample.identity
    result = {"jpg": jpeg, "json": wire_format.encode_meta(meta)}
    if labels is not None:
        result["seg.png"] = picture.encode_label_map(labels)
    return result


def _annotations(sample: Sample, image: Picture) -> tuple[Square, np.ndarray | None]:
    """The face square, from the landmarks, else from the label map, else the picture's middle; and the label map."""
    width, height = image.width, image.height
    square = _of_landmarks(sample.landmarks, width, height) if sample.landmarks is not None else None
    labels = read_label_map(sample.labels, (height, width)) if sample.labels is not None else None
    if square is None:
        square = square_from_size(width, height) if labels is None else _of_labels(labels)
    if square.side < MIN_FACE:
        raise UnusablePicture(f"undersized: the face's square has {square.side:.0f} pixels, needs {MIN_FACE}")
    return square, labels


def _of_landmarks(points: Points, width: int, height: int) -> Square:
    if not all(-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5 for x, y in points):
        raise UnusablePicture(f"a landmark lies outside the {width}x{height} picture")
    return square_from_landmarks(points)


def _of_labels(labels_HW: np.ndarray) -> Square:
    if (square := square_from_label_map(labels_HW)) is None:
        raise UnusablePicture(f"no face: its label map shows none of the classes {CLASSES[1]} to {CLASSES[9]}")
    return square
