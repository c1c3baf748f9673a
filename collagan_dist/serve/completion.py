"""One completion for the page: from the bytes of a picture and of its hole to the bytes of the results."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from collagan_dist.data.readers.hole_file import read_hole
from collagan_dist.errors import DataError
from collagan_dist.inference.face_location import lost_detail
from collagan_dist.inference.hole_source import Photograph, open_photograph
from collagan_dist.inference.model import Model
from collagan_dist.inference.paste import encode_photograph
from collagan_dist.tasks.segmentation import PALETTE
from collagan_dist.types import CLASSES, FileInMemory


@dataclass(frozen=True)
class CompletionRequest:
    """An uploaded picture, its hole (None for a model that completes nothing), and the blending (inference.evaluate.BLENDS)."""

    picture: FileInMemory
    hole: FileInMemory | None
    blend: str = "none"


@dataclass(frozen=True)
class CompletionAnswer:
    """What a model makes of a picture. PNGs have the picture's size, and are None without their task.

    `facts` can be written as JSON; its squares and landmarks have an entry a face. `parts` has a palette: its values are the
    classes, and background is transparent.
    """

    facts: dict[str, Any]
    completed: bytes | None
    parts: bytes | None


def complete_upload(model: Model, request: CompletionRequest) -> CompletionAnswer:
    """Complete an uploaded picture as `collagan complete` completes a file of that name. Raises DataError, ConfigError."""
    photo = _read(request, "inpainting" in model.tasks)
    # A model that completes nothing has nothing to blend.
    found = model.predict(photo, request.blend if "inpainting" in model.tasks else "none")
    squares = [face.window for face in found.windows]
    notes = [note for face in found.windows for note in (str(face), face.note)]
    notes.append(lost_detail([side for _, _, side in squares], model.size))
    facts: dict[str, Any] = {"squares": squares, "notes": [note for note in notes if note], "classes": []}
    parts = completed = None
    if "landmarks" in model.tasks:
        facts["landmarks"] = found.landmarks().round(2).tolist()
    if "segmentation" in model.tasks:
        labels = found.labels()
        facts["classes"] = [CLASSES[number] for number in np.unique(labels) if number]
        parts = _encode_labels(labels)
    if "inpainting" in model.tasks:
        completed = b"".join(encode_photograph(found.completed(), photo.profile))
    return CompletionAnswer(facts, completed, parts)


def _read(request: CompletionRequest, needs_hole: bool) -> Photograph:
    """Return the picture with its hole. Raises DataError also for a hole that a person has hardly meant."""
    # Before the picture: what decoding the largest takes is free again.
    hole_HW = read_hole(request.hole) if request.hole else None
    photo = open_photograph(request.picture, request.picture.name)
    if hole_HW is None:
        if needs_hole:
            raise DataError(f"{request.picture}: there is no hole; paint over what is to be completed")
        return photo
    if hole_HW.shape != photo.shape:
        sizes = " and ".join(f"{width}x{height}" for height, width in (hole_HW.shape, photo.shape))
        raise DataError(f"{request.hole}: hole and picture differ in size ({sizes}); give a hole of the picture's size")
    if not hole_HW.any():
        raise DataError(f"{request.hole}: the hole is empty; paint over what is to be completed")
    if hole_HW.all():
        raise DataError(f"{request.hole}: the hole is the whole picture; leave some of it to complete from")
    return replace(photo, hole_HW=hole_HW)


def _encode_labels(labels_HW: np.ndarray) -> bytes:
    image = Image.frombytes("P", labels_HW.shape[::-1], labels_HW.tobytes())
    image.putpalette([level for colour in PALETTE for level in colour])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=0)
    return buffer.getvalue()
