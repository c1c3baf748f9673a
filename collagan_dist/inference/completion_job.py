"""The work of `collagan complete`: photographs in batches, from reading to written results."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
from collagan_dist.inference.face_location import FaceWindow, GivenFace, locate_all_faces, to_picture
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
# Pictures that are read or written at once. On two cores that others used, too, 102 photographs with a given square were
# completed at 9 to 13 a second, instead of 1 to 6; to the same bytes. (The detector holds Python's lock and gains nothing.)
_THREADS = min(4, os.cpu_count() or 1)
_MAX_NAME_BYTES = 220  # of a picture: results have longer endings, and file systems allow 255

Result = list[FaceWindow] | DataError  # of one picture: the windows that were completed, or why it is left out


@dataclass(frozen=True)
class PredictedFaces:
    """What a model made of a batch of faces. `done_B3SS` are the completions, or its inputs if it completes nothing, in [-1, 1].

    `points_BK2` are landmarks in pixels of the faces, None if it finds none.
    """

    batch: Batch
    outputs: TaskTensors
    done_B3SS: torch.Tensor
    points_BK2: np.ndarray | None


@dataclass(frozen=True)
class CompletedFace:
    """What a model made of one face, on the CPU: its hole at the model's size, the completion, and its other tasks' outputs.

    `sheet` are columns of pictures, (1, 3, S, S) in [-1, 1] by title.
    """

    face: FaceWindow
    hole_SS: np.ndarray
    done_3SS: torch.Tensor
    scores_CSS: np.ndarray | None
    points_K2: np.ndarray | None
    sheet: dict[str, torch.Tensor]


def predict_faces(
    model: FaceModel,
    photos: Sequence[Photograph],
    faces: Sequence[FaceWindow],
    holes_BSS: np.ndarray,
    kind: str,
    blend: str,
) -> PredictedFaces:
    """Run a model on the windows of photographs, whose holes are of one kind (or GIVEN); `blend` is one of BLENDS."""
    pairs = zip(photos, faces, strict=True)
    # Cut first: the conversion of a whole photograph would take a hundred times as long.
    squares = [to_srgb(crop_window(p.pixels_HW3, face.window, model.size), p.profile) for p, face in pairs]
    batch = model.batch(np.stack(squares), holes_BSS, kind, [photo.name for photo in photos])
    outputs = _blended(model.predictor(batch), batch, blend)
    # A model without inpainting completes nothing; its sheet shows the input.
    done = (composite(outputs["inpainting"], batch) if "inpainting" in outputs else batch.input_B3HW).float()
    points = model.read_landmarks(outputs) if "landmarks" in outputs else None
    return PredictedFaces(batch, outputs, done, points)


def face_views(photo: Photograph, faces: Sequence[FaceWindow]) -> list[tuple[Photograph, FaceWindow]]:
    """Return the photograph with each of its faces: under a name of its own from the second on, so that kinds of holes differ."""
    return [(replace(photo, name=f"{photo.name}#{n + 1}") if n else photo, face) for n, face in enumerate(faces)]


def complete_faces(
    model: FaceModel,
    views: Sequence[tuple[Photograph, FaceWindow]],
    holes: Sequence[np.ndarray],
    kind: str,
    blend: str,
) -> list[CompletedFace]:
    """Return the completed faces of views, whose (size, size) holes are of one kind (or GIVEN), in batches of the model's size."""
    done: list[CompletedFace] = []
    for start in range(0, len(views), model.batch_size):
        part = slice(start, start + model.batch_size)
        photos, faces = zip(*views[part], strict=True)
        found = predict_faces(model, photos, faces, np.stack(holes[part]), kind, blend)
        scores = found.outputs["segmentation"].float().cpu().numpy() if "segmentation" in found.outputs else None
        sheet = _sheet_columns(found)
        for n, face in enumerate(faces):
            done.append(
                CompletedFace(
                    face, holes[start + n], found.done_B3SS[n].cpu(),
                    None if scores is None else scores[n],
                    None if found.points_BK2 is None else found.points_BK2[n],
                    {title: column[n : n + 1] for title, column in sheet.items()},
                )
            )  # fmt: skip
    return done


def paste_faces(pixels_HW3: np.ndarray, photo: Photograph, faces: Sequence[CompletedFace], blend: str) -> None:
    """Overwrite a photograph's pixels in the holes of its faces by their completions."""
    # Blending reads what lies around a hole: of several faces, first all are pasted, so that it is no other face's hole.
    for blended in (False, True) if blend != "none" and len(faces) > 1 else (blend != "none",):
        for done in faces:
            window = done.face.window
            hole = done.face.part or place_hole(photo.hole_HW, done.hole_SS, window, photo.shape)
            paste(pixels_HW3, hole, done.done_3SS, window, photo.profile, blended)


def _labels(shape: tuple[int, int], faces: Sequence[CompletedFace]) -> np.ndarray:
    labels_HW: np.ndarray | None = None
    for done in faces:
        assert done.scores_CSS is not None
        own_HW = compose_labels(done.scores_CSS[None], shape, [done.face.window])
        # One face's background does not hide another face.
        labels_HW = own_HW if labels_HW is None else np.where(own_HW > 0, own_HW, labels_HW)
    assert labels_HW is not None
    return labels_HW


def _sheet_columns(found: PredictedFaces) -> dict[str, torch.Tensor]:
    """Return what the model sees of each face, what it completes, and the parts and points that it finds."""
    overlay, done = found.done_B3SS, found.done_B3SS
    if "segmentation" in found.outputs:
        labels = colour(read_labels(found.outputs["segmentation"]))
        overlay = overlay * (1 - OVERLAY_OPACITY) + labels * OVERLAY_OPACITY
    if found.points_BK2 is not None:
        overlay = draw_points(overlay, torch.from_numpy(found.points_BK2).to(done.device))
    return {"masked": found.batch.input_B3HW, "completed": done, "overlay": overlay}


def _sheet(faces: Sequence[CompletedFace]) -> dict[str, torch.Tensor]:
    return {title: torch.cat([done.sheet[title] for done in faces]) for title in faces[0].sheet}


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


@dataclass(frozen=True)
class CompletionJob:
    """What all pictures of a command share. Names of pictures are relative to `folder`; results go to `out`."""

    model: FaceModel
    folder: Path
    holes_of: HoleSource
    out: Path
    given: GivenFace
    blend: str

    def path(self, name: str, ending: str) -> Path:
        """Return where a result of a picture is written."""
        return self.out / f"{split_suffix(name)[0]}.{ending}"

    def run(self, names: Sequence[str]) -> Iterator[tuple[str, Result]]:
        """Complete pictures in batches and write their results; yield (name, result) in the order of names."""
        with ThreadPoolExecutor(_THREADS) as pool:
            for batch in self._read_batches(names, pool):
                usable = {name: photo for name, photo in batch.items() if isinstance(photo, Photograph)}
                located = dict(
                    zip(usable, locate_all_faces(self.model, list(usable.values()), self.given), strict=True)
                )
                faces = {name: found for name, found in located.items() if not isinstance(found, DataError)}
                self._complete({name: (usable[name], found) for name, found in faces.items()}, pool)
                for name, photo in batch.items():
                    yield name, photo if isinstance(photo, DataError) else located[name]

    def _read_batches(
        self, names: Sequence[str], pool: ThreadPoolExecutor
    ) -> Iterator[dict[str, Photograph | DataError]]:
        """Yield pictures, or why they cannot be used, by name: as many as fit into a batch and into memory."""
        batch: dict[str, Photograph | DataError] = {}
        pixels, ahead = 0, 1
        waiting, started = deque[Future[Photograph | DataError]](), 0
        for number, name in enumerate(names):
            while started < min(len(names), number + ahead):
                waiting.append(pool.submit(self._read, names[started]))
                started += 1
            found = batch[name] = waiting.popleft().result()
            if isinstance(found, Photograph):
                size = found.shape[0] * found.shape[1]
                pixels += size
                # Sizes are unknown before they are read: large ones are read one by one, since each takes 200 MB or more.
                ahead = _THREADS if size * _THREADS <= _BATCH_PIXELS else 1
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

    def _complete(self, pictures: dict[str, tuple[Photograph, list[FaceWindow]]], pool: ThreadPoolExecutor) -> None:
        """Complete the faces of one batch of photographs and write the results."""
        views = [view for photo, faces in pictures.values() for view in face_views(photo, faces)]
        holes = [self._hole(photo, face) for photo, face in views]
        kind = GIVEN if self.holes_of.is_given else str(self.holes_of.kind)
        # All before the first is pasted: a face's square may have some of another face.
        done = iter(complete_faces(self.model, views, holes, kind, self.blend))
        writing = [
            pool.submit(self._write, name, photo, list(islice(done, len(faces))))
            for name, (photo, faces) in pictures.items()
        ]
        # In order, so that the first error is that of the first picture.
        for one in writing:
            one.result()

    def _write(self, name: str, photo: Photograph, faces: Sequence[CompletedFace]) -> None:
        self.path(name, "sheet.png").parent.mkdir(parents=True, exist_ok=True)
        size = self.model.size
        # No rounding error at the model's own size; hundredths of a pixel elsewhere.
        found = [
            to_picture(done.points_K2, done.face.window, size).round(2).tolist()
            for done in faces
            if done.points_K2 is not None
        ]
        if found:
            files.write_text(self.path(name, "landmarks.json"), f"{found if len(found) > 1 else found[0]}\n")
        if faces[0].scores_CSS is not None:
            files.write_bytes(self.path(name, "labels.png"), encode_png(_labels(photo.shape, faces)))
        if "inpainting" in self.model.config.model.tasks:
            self._write_completed(name, photo, faces)
        # A row a face; heads stand above the first alone.
        files.write_bytes(self.path(name, "sheet.png"), encode_png(draw_titled_grid(_sheet(faces))))

    def _hole(self, photo: Photograph, face: FaceWindow) -> np.ndarray:
        """Return the (size, size) hole that the model sees."""
        if self.holes_of.is_given:
            return cover_hole(photo.hole_HW, face.window, self.model.size)
        assert self.holes_of.kind is not None
        points = points_to_crop(face.landmarks, *face.window, self.model.size) if face.landmarks is not None else None
        return self.model.make_hole(self.holes_of.kind, photo.name, points)

    def _write_completed(self, name: str, photo: Photograph, faces: Sequence[CompletedFace]) -> None:
        pixels = photo.pixels_HW3 if photo.pixels_HW3.flags.writeable else photo.pixels_HW3.copy()
        paste_faces(pixels, photo, faces, self.blend)
        with files.atomic_write(self.path(name, "completed.png")) as file:
            for piece in encode_photograph(pixels, photo.profile):
                file.write(piece)
