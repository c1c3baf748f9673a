"""The work of `collagan complete`: photographs in batches, from reading to written results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from collagan_dist import files
from collagan_dist.data.face_square import points_to_crop
from collagan_dist.data.readers.colour_profile import to_srgb
from collagan_dist.data.readers.picture_format import split_suffix
from collagan_dist.errors import DataError
from collagan_dist.inference.evaluate import BLENDS
from collagan_dist.inference.face_location import FaceWindow, GivenFace, locate_faces, to_picture
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
_MAX_NAME_BYTES = 220  # of a picture: results have longer endings, and file systems allow 255

Result = FaceWindow | DataError  # of one picture: the window that was completed, or why it is left out


@dataclass(frozen=True)
class PredictedFaces:
    """What a model made of the faces of a batch of photographs. `done_B3SS` are the completions, or its inputs if it completes nothing, in [-1, 1].

    `points_BK2` are landmarks in pixels of the faces, None if it finds none. The methods give results of photograph `n` in its own pixels.
    """

    photos: Sequence[Photograph]
    faces: Sequence[FaceWindow]
    blend: str
    batch: Batch
    outputs: TaskTensors
    done_B3SS: torch.Tensor
    points_BK2: np.ndarray | None

    def landmarks(self, n: int) -> np.ndarray:
        """Return (5, 2) points of a model that finds landmarks."""
        assert self.points_BK2 is not None
        return to_picture(self.points_BK2[n], self.faces[n].window, self.done_B3SS.shape[-1])

    def labels(self, n: int) -> np.ndarray:
        """Return the (H, W) uint8 label map of a model that segments; it is background outside the window."""
        scores = self.outputs["segmentation"][n].float().cpu().numpy()
        return compose_labels(scores[None], self.photos[n].shape, [self.faces[n].window])

    def completed(self, n: int) -> np.ndarray:
        """Return (H, W, 3) uint8 in the photograph's colours, completed in its hole. The photograph's own pixels are overwritten."""
        photo, face = self.photos[n], self.faces[n]
        hole = place_hole(photo.hole_HW, self.batch.hole_B1HW[n, 0].cpu().numpy(), face.window, photo.shape)
        pixels = photo.pixels_HW3 if photo.pixels_HW3.flags.writeable else photo.pixels_HW3.copy()
        paste(pixels, hole, self.done_B3SS[n].cpu(), face.window, photo.profile, self.blend != "none")
        return pixels


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
    return PredictedFaces(photos, faces, blend, batch, outputs, done, points)


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
        for batch in self._read_batches(names):
            usable = {name: photo for name, photo in batch.items() if isinstance(photo, Photograph)}
            located = dict(zip(usable, locate_faces(self.model, list(usable.values()), self.given), strict=True))
            faces = {name: face for name, face in located.items() if isinstance(face, FaceWindow)}
            if faces:
                self._complete({name: usable[name] for name in faces}, list(faces.values()))
            for name, photo in batch.items():
                yield name, photo if isinstance(photo, DataError) else located[name]

    def _read_batches(self, names: Sequence[str]) -> Iterator[dict[str, Photograph | DataError]]:
        """Yield pictures, or why they cannot be used, by name: as many as fit into a batch and into memory."""
        batch: dict[str, Photograph | DataError] = {}
        pixels = 0
        for name in names:
            try:
                if len(Path(name).name.encode("utf-8", "surrogateescape")) > _MAX_NAME_BYTES:
                    raise DataError(f"{self.folder / name}: its name is too long for those of its results; rename it")
                photo = read_photograph(self.folder / name, name, self.holes_of)
                batch[name] = photo
                pixels += photo.shape[0] * photo.shape[1]
            except DataError as error:
                batch[name] = error
            if len(batch) >= self.model.batch_size or pixels >= _BATCH_PIXELS:
                yield batch
                batch, pixels = {}, 0
        if batch:
            yield batch

    def _complete(self, photos: dict[str, Photograph], faces: Sequence[FaceWindow]) -> None:
        """Complete one batch of photographs and write the results."""
        kind = GIVEN if self.holes_of.is_given else str(self.holes_of.kind)
        holes = np.stack([self._hole(photo, face) for photo, face in zip(photos.values(), faces, strict=True)])
        found = predict_faces(self.model, list(photos.values()), faces, holes, kind, self.blend)
        sheets = self._sheets(found)
        for n, (name, photo) in enumerate(photos.items()):
            self.path(name, "sheet.png").parent.mkdir(parents=True, exist_ok=True)
            if "landmarks" in found.outputs:
                # No rounding error at the model's own size; hundredths of a pixel elsewhere.
                files.write_text(self.path(name, "landmarks.json"), f"{found.landmarks(n).round(2).tolist()}\n")
            if "segmentation" in found.outputs:
                files.write_bytes(self.path(name, "labels.png"), encode_png(found.labels(n)))
            if "inpainting" in found.outputs:
                with files.atomic_write(self.path(name, "completed.png")) as file:
                    for piece in encode_photograph(found.completed(n), photo.profile):
                        file.write(piece)
            files.write_bytes(self.path(name, "sheet.png"), encode_png(sheets[n]))

    def _hole(self, photo: Photograph, face: FaceWindow) -> np.ndarray:
        """Return the (size, size) hole that the model sees."""
        if self.holes_of.is_given:
            return cover_hole(photo.hole_HW, face.window, self.model.size)
        assert self.holes_of.kind is not None
        points = points_to_crop(face.landmarks, *face.window, self.model.size) if face.landmarks is not None else None
        return self.model.make_hole(self.holes_of.kind, photo.name, points)

    def _sheets(self, found: PredictedFaces) -> list[np.ndarray]:
        """Return a picture for each sample: what the model sees, what it completes, and the parts and points that it finds."""
        overlay, done = found.done_B3SS, found.done_B3SS
        if "segmentation" in found.outputs:
            labels = colour(read_labels(found.outputs["segmentation"]))
            overlay = overlay * (1 - OVERLAY_OPACITY) + labels * OVERLAY_OPACITY
        if found.points_BK2 is not None:
            overlay = draw_points(overlay, torch.from_numpy(found.points_BK2).to(done.device))
        columns = {"masked": found.batch.input_B3HW, "completed": done, "overlay": overlay}
        return [draw_titled_grid({k: v[n : n + 1] for k, v in columns.items()}) for n in range(len(done))]
