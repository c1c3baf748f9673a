"""A trained model for faces that are cut from photographs: batches of them, outputs, and the model's own landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from collagan_dist import rng
from collagan_dist.config.tree import Config
from collagan_dist.data.face_square import Points, Square, square_from_landmarks
from collagan_dist.data.loading import holes
from collagan_dist.data.loading.occlusion_boxes import OcclusionBoxes
from collagan_dist.distributed import devices
from collagan_dist.distributed.engines import build_engine
from collagan_dist.distributed.group import Group
from collagan_dist.models.predictor import Predictor, TaskTensors
from collagan_dist.models.registry import load_predictor
from collagan_dist.setup import TEST_SEED
from collagan_dist.tasks import build_tasks
from collagan_dist.tasks.landmarks import read_points
from collagan_dist.types import FACE_SQUARE, Batch, World, image_from_pixels

GIVEN = "given"  # the kind of a hole that comes from a file; it is filled as one that is no pattern
_BATCH = 16


@dataclass(frozen=True)
class FaceModel:
    """A predictor with what its inputs depend on. `size` is the side of its images in pixels."""

    config: Config
    predictor: Predictor
    device: torch.device

    @property
    def size(self) -> int:
        return self.config.data.image_size

    @property
    def batch_size(self) -> int:
        """Faces at a time: one where statistics of the batch would let faces change one another."""
        return 1 if self.config.evaluate.batch_norm == "batch" else _BATCH

    @property
    def finds_landmarks(self) -> bool:
        return "landmarks" in self.config.model.tasks

    def face_square(self, landmarks: Points) -> Square:
        """Return the square around a face that the model was trained to see, in pixels of the landmarks' picture."""
        return self.scale_square(square_from_landmarks(landmarks))

    def scale_square(self, square: Square) -> Square:
        """Return the face square of this model for that of packing (types.FACE_SQUARE)."""
        return square.scaled(self.config.data.face_square / FACE_SQUARE)

    def keys(self, names: Sequence[str]) -> torch.Tensor:
        """Return the keys of the random tensors of pictures, which derive from their names, so that results repeat."""
        uids = _ids(names)
        # Seed and epoch (-1) of evaluation, whatever seed the run was trained with.
        return torch.from_numpy(rng.sample_keys(TEST_SEED, -1, uids)).to(self.device)

    def make_hole(self, kind: str, name: str, landmarks: Points | None = None) -> np.ndarray:
        """Return the (size, size) hole of a kind of holes.HOLES; O1 to O6 lie around landmarks (pixels of the face), if given."""
        points = torch.tensor(landmarks, device=self.device)[None] if landmarks is not None else None
        boxes = OcclusionBoxes(points, self.config.evaluate.fixed)
        return holes.HOLES[kind](self.keys([name]), self.size, boxes)[0, 0].cpu().numpy()

    def batch(self, faces_BSS3: np.ndarray, holes_BSS: np.ndarray, kind: str, names: Sequence[str]) -> Batch:
        """Return a batch of uint8 faces in sRGB, whose holes are of one kind (or GIVEN) and filled as in training."""
        image = image_from_pixels(torch.from_numpy(faces_BSS3).to(self.device))
        hole = torch.from_numpy(holes_BSS)[:, None].to(self.device)
        keys = self.keys(names)
        filled = holes.occlude(image, hole, kind, keys, self.config.hole.fill)
        return Batch(image, filled, hole, None, None, _ids(names), np.full(len(names), -1), keys)

    def read_landmarks(self, outputs: TaskTensors) -> np.ndarray:
        """Return (B, 5, 2) float64 landmarks in pixels of the faces."""
        return read_points(outputs["landmarks"], self.config.evaluate.readout == "quarter")

    def find_landmarks(
        self, faces_BSS3: np.ndarray, holes_BSS: np.ndarray, names: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (B, 5, 2) landmarks of any number of faces, and (B,) how sure the model is: the mean peak, -1 to 1."""
        points, peaks = [], []
        for start in range(0, len(names), self.batch_size):
            part = slice(start, start + self.batch_size)
            outputs = self.predictor(self.batch(faces_BSS3[part], holes_BSS[part], GIVEN, names[part]))
            points.append(self.read_landmarks(outputs))
            peaks.append(outputs["landmarks"].float().amax((2, 3)).mean(1).cpu().numpy())
        return np.concatenate(points), np.concatenate(peaks)


def _ids(names: Sequence[str]) -> np.ndarray:
    # Without folders: a picture alone, and in a folder of folders, is completed alike.
    return np.array([rng.name_id(name.rpartition("/")[2]) for name in names])


def load_face_model(run: Path, config: Config) -> tuple[FaceModel, int]:
    """Return the model of a run folder or an exported folder, on this machine's device, and its step. Raises CheckpointError."""
    device = devices.pick_device(World())
    engine = build_engine(config.runtime, Group(World(), device))
    predictor, step = load_predictor(run, config, engine, build_tasks(config))
    return FaceModel(config, predictor, engine.device), step
