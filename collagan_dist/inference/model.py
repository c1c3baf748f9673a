"""A trained model for pictures in memory: the arrays of a notebook or of another program."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from collagan_dist.config.load import model_label
from collagan_dist.config.tree import Config
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.inference.completion_job import CompletedPhotograph, complete_photographs
from collagan_dist.inference.evaluate import BLENDS, check_blends
from collagan_dist.inference.face_location import GivenFaces
from collagan_dist.inference.face_model import GIVEN, FaceModel, load_face_model
from collagan_dist.inference.hole_source import Photograph
from collagan_dist.runs.model_folder import read_config
from collagan_dist.types import MAX_PIXELS

logger = logging.getLogger(__name__)

# The name that random numbers derive from, as of a picture called image.png: results repeat.
_NAME = "image"


@dataclass(frozen=True)
class Model:
    """A trained model, on the device that is there. `step` is how long it has been trained."""

    folder: Path
    faces: FaceModel
    step: int

    @classmethod
    def load(cls, folder: str | Path, sets: Sequence[str] = ()) -> Model:
        """Load a run folder (its newest checkpoint) or an exported folder.

        `sets` change how the model is evaluated, as `--set`: ["evaluate.search.steps=200"].
        Raises ConfigError, and CheckpointError for weights that are missing or damaged.
        """
        folder = Path(folder)
        faces, step = load_face_model(folder, read_config(folder, sets=sets))
        return cls(folder, faces, step)

    def __repr__(self) -> str:
        return f"Model({str(self.folder)!r}: {model_label(self.config.model)}, step {self.step}, {self.size} pixels)"

    @property
    def config(self) -> Config:
        return self.faces.config

    @property
    def size(self) -> int:
        """Side in pixels of the squares that the networks see."""
        return self.faces.size

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.config.model.tasks

    def complete(self, image: np.ndarray, hole: np.ndarray, blend: str = "none") -> np.ndarray:
        """Return the completed picture, (H, W, 3) uint8. Pixels outside the hole are those of `image`.

        `image` is (H, W, 3) uint8 in sRGB, `hole` (H, W) bool, true inside. As by `collagan complete`, faces are found, and
        their squares are seen by the networks at `size` pixels: a larger hole is completed as coarsely. `blend` is none or poisson.
        Raises ConfigError for other arrays, and for a model that completes nothing; DataError for a hole that is too large.
        """
        self._require("inpainting", "completes nothing")
        check_blends([_known_blend(blend)], self.tasks)
        _check_image(image)
        _check_hole(hole, image)
        if not hole.any():
            logger.warning("warning: the hole is empty: nothing changes")
            return image.copy()
        if hole.all():
            logger.warning("warning: the hole is the whole picture: nothing of it is given")
        return self.predict(Photograph(_NAME, image.copy(), None, hole), blend).completed()

    def segment(self, image: np.ndarray) -> np.ndarray:
        """Return the label map of a picture, (H, W) uint8 (classes: types.CLASSES). `image` is (H, W, 3) uint8 in sRGB.

        Raises ConfigError for other arrays, and for a model that does not segment.
        """
        self._require("segmentation", "does not segment")
        _check_image(image)
        return self.predict(Photograph(_NAME, image, None, None)).labels()

    def landmarks(self, image: np.ndarray) -> np.ndarray:
        """Return five (x, y) of the largest face, (5, 2) float64 in pixels of the picture (names: types.LANDMARKS).

        `image` is (H, W, 3) uint8 in sRGB.

        Raises ConfigError for other arrays, and for a model that finds none.
        """
        self._require("landmarks", "finds no landmarks")
        _check_image(image)
        return self.predict(Photograph(_NAME, image, None, None)).landmarks()[0]

    def predict(self, photo: Photograph, blend: str = "none") -> CompletedPhotograph:
        """Find the faces of a photograph and run the networks on them, its hole hidden from them; `blend` is one of BLENDS.

        Raises DataError for a hole that is too large.
        """
        kind = "none" if photo.hole_HW is None else GIVEN
        (result,) = complete_photographs(self.faces, [photo], GivenFaces(), kind, blend)
        if isinstance(result, DataError):
            raise result
        return result

    def _require(self, task: str, lacks: str) -> None:
        if task not in self.tasks:
            raise ConfigError(f"{self.folder}: is {model_label(self.config.model)}, which {lacks}")


def _known_blend(blend: str) -> str:
    if blend not in BLENDS:
        raise ConfigError(f"blend: {blend!r} is none of {', '.join(BLENDS)}")
    return blend


def _check_image(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ConfigError(f"image: is {_describe(image)}; give an array (H, W, 3) of uint8, RGB")
    if not 1 <= image.shape[0] * image.shape[1] <= MAX_PIXELS:
        raise ConfigError(f"image: is {_describe(image)}; give one of 1 to {MAX_PIXELS:,} pixels")


def _check_hole(hole: np.ndarray, image: np.ndarray) -> None:
    if not isinstance(hole, np.ndarray) or hole.dtype != np.bool_ or hole.shape != image.shape[:2]:
        wanted = f"({image.shape[0]}, {image.shape[1]})"
        raise ConfigError(f"hole: is {_describe(hole)}; give an array {wanted} of bool, true inside, as the image is")


def _describe(value: object) -> str:
    if not isinstance(value, np.ndarray):
        return f"a {type(value).__name__}"
    return f"an array {value.shape} of {value.dtype}"
