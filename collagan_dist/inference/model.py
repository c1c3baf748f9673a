"""A trained model for pictures in memory: the arrays of a notebook or of another program."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from collagan_dist import rng
from collagan_dist.config.load import model_label
from collagan_dist.config.tree import Config
from collagan_dist.data.loading import holes
from collagan_dist.distributed import devices
from collagan_dist.distributed.engines import build_engine
from collagan_dist.distributed.group import Group
from collagan_dist.errors import ConfigError
from collagan_dist.inference.evaluate import BLENDS, check_blends
from collagan_dist.models.predictor import Predictor, TaskTensors
from collagan_dist.models.registry import load_predictor
from collagan_dist.runs.model_folder import read_config
from collagan_dist.setup import TEST_SEED
from collagan_dist.tasks import build_tasks
from collagan_dist.tasks.inpainting import composite, to_bytes
from collagan_dist.tasks.landmarks import read_points
from collagan_dist.tasks.segmentation import read_labels
from collagan_dist.types import MAX_PIXELS, Batch, World, image_from_pixels

logger = logging.getLogger(__name__)

# The name that random numbers derive from, as of a picture called image.png: results repeat.
_NAME = "image"
_CUBIC_REACH = 2  # pixels on each side that a pixel of a cubic enlargement is made of


@dataclass(frozen=True)
class Model:
    """A trained model, on the device that is there. `step` is how long it has been trained."""

    folder: Path
    config: Config
    predictor: Predictor
    device: torch.device
    step: int

    @classmethod
    def load(cls, folder: str | Path, sets: Sequence[str] = ()) -> Model:
        """Load a run folder (its newest checkpoint) or an exported folder.

        `sets` change how the model is evaluated, as `--set`: ["evaluate.search.steps=200"].
        Raises ConfigError, and CheckpointError for weights that are missing or damaged.
        """
        folder = Path(folder)
        config = read_config(folder, sets=sets)
        engine = build_engine(config.runtime, Group(World(), devices.pick_device(World())))
        predictor, step = load_predictor(folder, config, engine, build_tasks(config))
        return cls(folder, config, predictor, engine.device, step)

    def __repr__(self) -> str:
        return f"Model({str(self.folder)!r}: {model_label(self.config.model)}, step {self.step}, {self.size} pixels)"

    @property
    def size(self) -> int:
        """Side in pixels of the squares that the networks see."""
        return self.config.data.image_size

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.config.model.tasks

    def complete(self, image: np.ndarray, hole: np.ndarray, blend: str = "none") -> np.ndarray:
        """Return the completed picture, (H, W, 3) uint8. Pixels outside the hole are those of `image`.

        `image` is (H, W, 3) uint8 in sRGB, `hole` (H, W) bool, true inside. What is completed is seen by the networks at
        `size` pixels: a larger hole is completed as coarsely. `blend` is none or poisson. Raises ConfigError for other
        arrays, and for a model that completes nothing.
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
        return _complete_square(self, image, hole, blend)

    def segment(self, image: np.ndarray) -> np.ndarray:
        """Return the label map of a picture, (H, W) uint8 (classes: types.CLASSES). `image` is (H, W, 3) uint8 in sRGB.

        Raises ConfigError for other arrays, and for a model that does not segment.
        """
        self._require("segmentation", "does not segment")
        _check_image(image)
        square = _Square.around(image.shape[:2])
        outputs, _ = self._predict(square.cut(image, self.size), None)
        labels = read_labels(outputs["segmentation"])[0].cpu().numpy()
        return square.paste(cv2.resize(labels, (square.side, square.side), interpolation=cv2.INTER_NEAREST_EXACT))

    def landmarks(self, image: np.ndarray) -> np.ndarray:
        """Return five (x, y), (5, 2) float64 in pixels of the picture (names: types.LANDMARKS). `image` is (H, W, 3) uint8.

        Raises ConfigError for other arrays, and for a model that finds none.
        """
        self._require("landmarks", "finds no landmarks")
        _check_image(image)
        square = _Square.around(image.shape[:2])
        outputs, _ = self._predict(square.cut(image, self.size), None)
        points = read_points(outputs["landmarks"], self.config.evaluate.readout == "quarter")[0]
        # Integers are pixel centres, on both sides.
        return (points + 0.5) * (square.side / self.size) - 0.5 + (square.left, square.top)

    def _require(self, task: str, lacks: str) -> None:
        if task not in self.tasks:
            raise ConfigError(f"{self.folder}: is {model_label(self.config.model)}, which {lacks}")

    def _predict(self, pixels_HW3: np.ndarray, hole_HW: np.ndarray | None) -> tuple[TaskTensors, Batch]:
        """Run the networks on a square of `size` pixels and its hole."""
        kind = "none" if hole_HW is None else "given"
        shown = np.zeros(pixels_HW3.shape[:2], bool) if hole_HW is None else hole_HW
        image = image_from_pixels(torch.from_numpy(pixels_HW3)[None].to(self.device))
        hole = torch.from_numpy(shown)[None, None].to(self.device)
        uid = np.array([rng.name_id(_NAME)])
        keys = torch.from_numpy(rng.sample_keys(TEST_SEED, -1, uid)).to(self.device)
        filled = holes.occlude(image, hole, kind, keys, self.config.hole.fill)
        batch = Batch(image, filled, hole, None, None, uid, np.array([-1]), keys)
        return self.predictor(batch), batch


def _complete_square(model: Model, image: np.ndarray, hole: np.ndarray, blend: str) -> np.ndarray:
    """Complete the square of a picture that contains the hole, at the model's size, and put the hole's pixels back."""
    square = _Square.around(image.shape[:2], hole)
    # A pixel of the model's is in the hole where any pixel that it is made of is: none of the hole is given away.
    reach = _CUBIC_REACH if square.side < model.size else 0
    hidden = cv2.dilate(hole.astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8))
    seen = square.cut(hidden.astype(np.float32), model.size) > 0
    outputs, batch = model._predict(square.cut(image, model.size), seen)
    done = to_bytes(composite(BLENDS[blend](outputs, batch)["inpainting"], batch))[0]
    return np.where(hole[..., None], square.paste(_resize(done, square.side)), image)


@dataclass(frozen=True)
class _Square:
    """A square of a picture of `shape` (height, width), which may reach beyond it: then its border is continued."""

    shape: tuple[int, int]
    top: int
    left: int
    side: int

    @classmethod
    def around(cls, shape: tuple[int, int], hole: np.ndarray | None = None) -> _Square:
        """Return the centre square, moved to contain the hole; of the longer side where it would not."""
        height, width = shape
        side = min(shape)
        if hole is None:
            return cls(shape, (height - side) // 2, (width - side) // 2, side)
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        if max(rows[-1] - rows[0], columns[-1] - columns[0]) >= side:
            side = max(shape)
        return cls(shape, _start(height, side, rows), _start(width, side, columns), side)

    def cut(self, array: np.ndarray, size: int) -> np.ndarray:
        """Return the square of an (H, W) or (H, W, 3) array, resized to `size` unless it has that size."""
        inside = array[max(self.top, 0) : self.top + self.side, max(self.left, 0) : self.left + self.side]
        above, before = max(-self.top, 0), max(-self.left, 0)
        below, behind = self.side - inside.shape[0] - above, self.side - inside.shape[1] - before
        # A hole does not continue: what is beyond the picture is not wanted.
        edge = cv2.BORDER_REPLICATE if array.ndim == 3 else cv2.BORDER_CONSTANT
        return _resize(cv2.copyMakeBorder(inside, above, below, before, behind, edge), size)

    def paste(self, square: np.ndarray) -> np.ndarray:
        """Return a picture of `shape` with the pixels of the square, and zeros elsewhere."""
        height, width = self.shape
        result = np.zeros((height, width, *square.shape[2:]), square.dtype)
        top, left = max(self.top, 0), max(self.left, 0)
        part = square[top - self.top : height - self.top, left - self.left : width - self.left]
        result[top : top + part.shape[0], left : left + part.shape[1]] = part
        return result


def _start(length: int, side: int, inside: np.ndarray) -> int:
    """Return where a stretch of `side` begins on an axis: in its middle, moved as far as it must to contain `inside`."""
    return int(np.clip((length - side) // 2, inside[-1] + 1 - side, inside[0]))


def _resize(array: np.ndarray, size: int) -> np.ndarray:
    if len(array) == size:
        return np.ascontiguousarray(array)
    # Area averaging avoids aliasing but cannot enlarge.
    enlarging = cv2.INTER_CUBIC if array.ndim == 3 else cv2.INTER_NEAREST_EXACT
    return cv2.resize(array, (size, size), interpolation=cv2.INTER_AREA if len(array) > size else enlarging)


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
