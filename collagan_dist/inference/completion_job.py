"""The work of `collagan complete`: photographs in batches, from reading to written results."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from collagan_dist import files
from collagan_dist.data.face_square import points_to_crop
from collagan_dist.data.readers.colour_profile import to_srgb
from collagan_dist.data.readers.picture_format import split_suffix
from collagan_dist.errors import DataError
from collagan_dist.inference.evaluate import BLENDS
from collagan_dist.inference.face_location import FaceWindow, GivenFaces, locate_faces, to_picture
from collagan_dist.inference.face_model import GIVEN, FaceModel
from collagan_dist.inference.face_views import compose_labels, crop_window
from collagan_dist.inference.grids import draw_titled_grid, encode_png
from collagan_dist.inference.hole_mask import cover_hole
from collagan_dist.inference.hole_source import HoleSource, Photograph, read_photograph
from collagan_dist.inference.paste import encode_photograph, paste, place_hole
from collagan_dist.models.predictor import TaskTensors
from collagan_dist.tasks.inpainting import composite
from collagan_dist.tasks.landmarks import draw_points
from collagan_dist.tasks.segmentation import colour, read_labels
from collagan_dist.types import Batch

OVERLAY_OPACITY = 0.45  # of the label colours over the completed picture
# A batch is closed when its photographs have so many pixels: they stay in memory until they are written.
_BATCH_PIXELS = 24_000_000
# Results that are written at once. On two cores 102 photographs with a given square are completed at 44 a second instead of 35.
# Reading in threads, too, adds a twentieth, and the detector holds Python's lock.
_THREADS = min(4, os.cpu_count() or 1)
_MAX_NAME_BYTES = 220  # of a picture: results have longer endings, and file systems allow 255

Result = list[FaceWindow] | DataError  # of one picture: the windows that were completed, or why it is left out


@dataclass(frozen=True)
class CompletedFace:
    """What a model made of one face, on the CPU, S pixels a side: what it saw, the hole in that, and the completion, in [-1, 1].

    A model that completes nothing has what it saw as completion. `scores_CSS` are those of classes, `points_K2` landmarks in
    pixels of the face; None without their task.
    """

    face: FaceWindow
    seen_3SS: torch.Tensor
    hole_SS: np.ndarray
    done_3SS: torch.Tensor
    scores_CSS: torch.Tensor | None
    points_K2: np.ndarray | None


@dataclass(frozen=True)
class CompletedPhotograph:
    """What a model made of the faces of a photograph, one or more; the methods give it in the photograph's own pixels."""

    photo: Photograph
    faces: Sequence[CompletedFace]
    blend: str

    @property
    def windows(self) -> list[FaceWindow]:
        return [done.face for done in self.faces]

    def landmarks(self) -> np.ndarray:
        """Return the (F, 5, 2) points of each face, by a model that finds landmarks."""
        points = [
            to_picture(done.points_K2, done.face.window, done.done_3SS.shape[-1])
            for done in self.faces
            if done.points_K2 is not None
        ]
        return np.stack(points)

    def labels(self) -> np.ndarray:
        """Return the (H, W) uint8 label map, by a model that segments; it is background outside the windows."""
        labels_HW = np.zeros(self.photo.shape, np.uint8)
        for done in self.faces:
            assert done.scores_CSS is not None
            own_HW = compose_labels(done.scores_CSS.numpy()[None], self.photo.shape, [done.face.window])
            # One face's background does not hide another face.
            np.copyto(labels_HW, own_HW, where=own_HW > 0)
        return labels_HW

    def completed(self) -> np.ndarray:
        """Return (H, W, 3) uint8 in the photograph's colours, completed in its hole. The photograph's own pixels are overwritten."""
        photo, blended = self.photo, self.blend != "none"
        pixels_HW3 = photo.pixels_HW3 if photo.pixels_HW3.flags.writeable else photo.pixels_HW3.copy()
        # Blending reads what lies around a hole: of several faces, first all are pasted, so that it is no other face's hole.
        for last in (False, True) if blended and len(self.faces) > 1 else (blended,):
            for done in self.faces:
                window = done.face.window
                hole = done.face.part or place_hole(photo.hole_HW, done.hole_SS, window, photo.shape)
                paste(pixels_HW3, hole, done.done_3SS, window, photo.profile, last)
        return pixels_HW3

    def sheet(self) -> np.ndarray:
        """Return a picture with a row a face: what the model sees, what it completes, and the parts and points that it finds."""
        done = torch.stack([face.done_3SS for face in self.faces])
        overlay = done
        if scores := [face.scores_CSS for face in self.faces if face.scores_CSS is not None]:
            overlay = overlay * (1 - OVERLAY_OPACITY) + colour(read_labels(torch.stack(scores))) * OVERLAY_OPACITY
        if points := [face.points_K2 for face in self.faces if face.points_K2 is not None]:
            overlay = draw_points(overlay, torch.from_numpy(np.stack(points)))
        seen = torch.stack([face.seen_3SS for face in self.faces])
        return draw_titled_grid({"masked": seen, "completed": done, "overlay": overlay})


def complete_photographs(
    model: FaceModel, photos: Sequence[Photograph], given: GivenFaces, kind: str, blend: str
) -> list[CompletedPhotograph | DataError]:
    """Find the faces of photographs and complete them; a DataError where what is given of a face or its hole is wrong.

    `kind` is one of holes.HOLES, made in each face, or GIVEN: the photographs' own holes. `blend` is one of BLENDS.
    """
    located = locate_faces(model, photos, given)
    views = [
        # From the second face on under a name of its own, so that kinds of holes differ.
        (replace(photo, name=f"{photo.name}#{n + 1}") if n else photo, face)
        for photo, faces in zip(photos, located, strict=True)
        if not isinstance(faces, DataError)
        for n, face in enumerate(faces)
    ]
    parts = (views[start : start + model.batch_size] for start in range(0, len(views), model.batch_size))
    # All before the first is pasted: a face's square may have some of another face.
    done = iter([face for part in parts for face in _complete_batch(model, part, kind, blend)])
    return [
        faces if isinstance(faces, DataError) else CompletedPhotograph(photo, list(islice(done, len(faces))), blend)
        for photo, faces in zip(photos, located, strict=True)
    ]


def _complete_batch(
    model: FaceModel, views: Sequence[tuple[Photograph, FaceWindow]], kind: str, blend: str
) -> list[CompletedFace]:
    """Run a model on the faces of one batch, each in its photograph."""
    holes = [_hole(model, photo, face, kind) for photo, face in views]
    # Cut first: the conversion of a whole photograph would take a hundred times as long.
    squares = [to_srgb(crop_window(photo.pixels_HW3, face.window, model.size), photo.profile) for photo, face in views]
    batch = model.batch(np.stack(squares), np.stack(holes), kind, [photo.name for photo, _ in views])
    outputs = _blended(model.predictor(batch), batch, blend)
    # A model without inpainting completes nothing; its sheet shows the input.
    done = (composite(outputs["inpainting"], batch) if "inpainting" in outputs else batch.input_B3HW).float().cpu()
    scores = outputs["segmentation"].float().cpu() if "segmentation" in outputs else None
    points = model.read_landmarks(outputs) if "landmarks" in outputs else None
    seen = batch.input_B3HW.float().cpu()
    return [
        CompletedFace(
            face, seen[n], holes[n], done[n],
            None if scores is None else scores[n],
            None if points is None else points[n],
        )
        for n, (_, face) in enumerate(views)
    ]  # fmt: skip


def _hole(model: FaceModel, photo: Photograph, face: FaceWindow, kind: str) -> np.ndarray:
    """Return the (size, size) hole that the model sees."""
    if kind == GIVEN:
        return cover_hole(photo.hole_HW, face.window, model.size)
    points = points_to_crop(face.landmarks, *face.window, model.size) if face.landmarks is not None else None
    return model.make_hole(kind, photo.name, points)


def _blended(outputs: TaskTensors, batch: Batch, blend: str) -> TaskTensors:
    if blend == "none":
        return outputs
    # One by one: the solver goes on until the last picture of a batch is done, which would change the others.
    parts = batch.split(len(batch.ids_B))
    done = [
        BLENDS[blend]({task: output[n : n + 1] for task, output in outputs.items()}, part)
        for n, part in enumerate(parts)
    ]
    return {task: torch.cat([one[task] for one in done]) for task in outputs}


def _is_large(photo: Photograph) -> bool:
    """Return whether a photograph is so large that its results are written one by one, in no thread."""
    # Each takes 200 MB or more. What a thread has freed it keeps, so that the next step would need as much again.
    return photo.shape[0] * photo.shape[1] * _THREADS > _BATCH_PIXELS


@dataclass(frozen=True)
class CompletionJob:
    """What all pictures of a command share. Names of pictures are relative to `folder`; results go to `out`."""

    model: FaceModel
    folder: Path
    holes_of: HoleSource
    out: Path
    given: GivenFaces
    blend: str

    def path(self, name: str, ending: str) -> Path:
        """Return where a result of a picture is written."""
        return self.out / f"{split_suffix(name)[0]}.{ending}"

    def run(self, names: Sequence[str]) -> Iterator[tuple[str, Result]]:
        """Complete pictures in batches and write their results; yield (name, result) in the order of names."""
        with ThreadPoolExecutor(_THREADS) as pool:
            for batch in self._read_batches(names):
                yield from self._complete(batch, pool)
                batch.clear()  # before the next ones are read: the largest take 200 MB each

    def _complete(
        self, batch: dict[str, Photograph | DataError], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[str, Result]]:
        kind = GIVEN if self.holes_of.is_given else str(self.holes_of.kind)
        photos = [photo for photo in batch.values() if isinstance(photo, Photograph)]
        done = iter(complete_photographs(self.model, photos, self.given, kind, self.blend))
        results = {name: photo if isinstance(photo, DataError) else next(done) for name, photo in batch.items()}
        writing = {
            name: pool.submit(self._write, name, result)
            for name, result in results.items()
            if isinstance(result, CompletedPhotograph) and not _is_large(result.photo)
        }
        # In order, so that the first error is that of the first picture.
        for name, result in results.items():
            if name in writing:
                writing[name].result()
            elif isinstance(result, CompletedPhotograph):
                self._write(name, result)
            yield name, result if isinstance(result, DataError) else result.windows

    def _read_batches(self, names: Sequence[str]) -> Iterator[dict[str, Photograph | DataError]]:
        """Yield pictures, or why they cannot be used, by name: as many as fit into a batch and into memory."""
        batch: dict[str, Photograph | DataError] = {}
        pixels = 0
        for name in names:
            found = batch[name] = self._read(name)
            if isinstance(found, Photograph):
                pixels += found.shape[0] * found.shape[1]
            del found  # the consumer empties the batch
            if len(batch) >= self.model.batch_size or pixels >= _BATCH_PIXELS:
                yield batch
                batch, pixels = {}, 0
        if batch:
            yield batch

    def _read(self, name: str) -> Photograph | DataError:
        try:
            if len(Path(name).name.encode("utf-8", "surrogateescape")) > _MAX_NAME_BYTES:
                raise DataError(f"{self.folder / name}: its name is too long for those of its results; rename it")
            return read_photograph(self.folder / name, name, self.holes_of)
        except DataError as error:
            return error

    def _write(self, name: str, result: CompletedPhotograph) -> None:
        tasks = self.model.config.model.tasks
        self.path(name, "sheet.png").parent.mkdir(parents=True, exist_ok=True)
        if "landmarks" in tasks:
            # No rounding error at the model's own size; hundredths of a pixel elsewhere.
            points = result.landmarks().round(2).tolist()
            files.write_text(self.path(name, "landmarks.json"), f"{points if len(points) > 1 else points[0]}\n")
        if "segmentation" in tasks:
            files.write_bytes(self.path(name, "labels.png"), encode_png(result.labels()))
        if "inpainting" in tasks:
            with files.atomic_write(self.path(name, "completed.png")) as file:
                for piece in encode_photograph(result.completed(), result.photo.profile):
                    file.write(piece)
        files.write_bytes(self.path(name, "sheet.png"), encode_png(result.sheet()))
