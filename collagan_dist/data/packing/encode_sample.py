"""Turn one sample of a data set into the files that a shard stores: picture, json and, where there is one, label map."""

from __future__ import annotations

from typing import Any

import numpy as np

from collagan_dist.data.face_square import (
    Square,
    pixel_box,
    points_to_crop,
    snap_to_pixels,
    square_from_label_map,
    square_from_landmarks,
    square_from_size,
)
from collagan_dist.data.readers.label_maps import read_label_map
from collagan_dist.data.readers.picture import (
    MIN_FACE_PIXELS,
    Picture,
    UnusablePicture,
    crop_square,
    encode_jpeg,
    encode_label_map,
    read_picture,
)
from collagan_dist.data.shards import wire_format
from collagan_dist.types import CLASSES, MARGIN, Sample


def encode_sample(sample: Sample, store: str, size: int) -> dict[str, bytes]:
    """Return the files of one sample by extension.

    Raises UnusablePicture for what is quarantined, DataError for a wrong label map.
    """
    # Annotations mean the pixels as they are stored. Without any, a picture is packed as a viewer shows it.
    picture = read_picture(sample.path, upright=sample.landmarks is None and sample.labels is None)
    return _encode_crop(sample, picture, size) if store == "crop" else _encode_original(sample, picture)


def _encode_crop(sample: Sample, picture: Picture, size: int) -> dict[str, bytes]:
    """Encode the margin square around the face, `size` pixels wide."""
    # Decoded before the annotation is read, so that a damaged picture is quarantined whatever its annotation is.
    pixels = picture.pixels_HW3
    square, labels = square_and_labels(sample, picture)
    # Augmentation moves the view inside this margin, so no more of the picture is needed.
    margin = square.scaled(MARGIN)
    points = points_to_crop(sample.landmarks, *pixel_box(margin), size) if sample.landmarks is not None else None
    labels = crop_square(labels, margin, size, nearest=True) if labels is not None else None
    jpeg = encode_jpeg(crop_square(pixels, margin, size))
    return _files(sample, jpeg, labels, {"landmarks": points, "width": size, "height": size})


def _encode_original(sample: Sample, picture: Picture) -> dict[str, bytes]:
    """Keep the picture as it is and note the face square that training crops."""
    jpeg, reencoded = picture.as_jpeg()
    square, labels = square_and_labels(sample, picture)
    meta = original_meta(sample, picture, square)
    if reencoded:
        meta["reencoded"] = True
    return _files(sample, jpeg, labels, meta)


def original_meta(sample: Sample, picture: Picture, square: Square) -> dict[str, Any]:
    """Return what the json says of a picture that is kept as it is."""
    meta: dict[str, Any] = {"landmarks": sample.landmarks, "width": picture.width, "height": picture.height}
    # Landmarks say where the face square is; without them, training would need the label map before decoding.
    if sample.landmarks is None:
        square = snap_to_pixels(square)
        meta["square"] = [round(square.x, 3), round(square.y, 3), round(square.side, 3)]
    return meta


def _files(sample: Sample, jpeg: bytes, labels: np.ndarray | None, meta: dict[str, Any]) -> dict[str, bytes]:
    meta |= {"source": sample.source}
    if sample.identity is not None:
        meta["identity"] = sample.identity
    result = {"jpg": jpeg, "json": wire_format.encode_meta(meta)}
    if labels is not None:
        result["seg.png"] = encode_label_map(labels)
    return result


def square_and_labels(
    sample: Sample, picture: Picture, stored: Square | None = None
) -> tuple[Square, np.ndarray | None]:
    """Return the face square (from landmarks, else as `stored`, else from label map, else picture size) and the label map.

    Raises UnusablePicture, or DataError for a wrong label map.
    """
    width, height = picture.width, picture.height
    # Landmarks first: a picture that they make unusable is quarantined before its label map is read.
    square = _square_of_landmarks(sample.landmarks, width, height) if sample.landmarks is not None else stored
    labels = read_label_map(sample.labels, (height, width)) if sample.labels is not None else None
    if square is None:
        square = square_from_size(width, height) if labels is None else _square_of_labels(labels)
    # Smaller faces have too little detail to learn from.
    if square.side < MIN_FACE_PIXELS:
        raise UnusablePicture(f"undersized: the face's square has {square.side:.0f} pixels, needs {MIN_FACE_PIXELS}")
    return square, labels


def _square_of_landmarks(points: tuple[tuple[float, float], ...], width: int, height: int) -> Square:
    if not all(-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5 for x, y in points):
        raise UnusablePicture(f"a landmark lies outside the {width}x{height} picture")
    if len(set(points)) < len(points):
        raise UnusablePicture("two landmarks are the same point")
    return square_from_landmarks(points)


def _square_of_labels(labels_HW: np.ndarray) -> Square:
    if (square := square_from_label_map(labels_HW)) is None:
        raise UnusablePicture(f"no face: its label map shows none of the classes {CLASSES[1]} to {CLASSES[9]}")
    return square
