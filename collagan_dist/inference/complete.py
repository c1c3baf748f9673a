"""`collagan complete`: complete pictures of any source with a trained generator."""

from __future__ import annotations

import glob
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from collagan_dist import files, rng, shell
from collagan_dist.config.tree import Config
from collagan_dist.data.loading import holes
from collagan_dist.data.loading.occlusion_boxes import OcclusionBoxes
from collagan_dist.data.readers.archives import FolderOrArchive
from collagan_dist.data.readers.colour_profile import from_srgb, to_srgb
from collagan_dist.data.readers.hole_file import read_hole
from collagan_dist.data.readers.picture import MAX_BAD, UnusablePicture, check_bad_count, read_picture, resize_nearest
from collagan_dist.data.readers.picture_format import FORMATS, masked_name, split_masks
from collagan_dist.distributed import devices
from collagan_dist.distributed.engines import build_engine
from collagan_dist.distributed.group import Group
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.inference.evaluate import BLENDS, check_blends
from collagan_dist.inference.grids import draw_grid, encode_png
from collagan_dist.models.predictor import TaskTensors
from collagan_dist.models.registry import load_predictor
from collagan_dist.runs.model_folder import read_config
from collagan_dist.setup import TEST_SEED
from collagan_dist.tasks import build_tasks
from collagan_dist.tasks.inpainting import composite, to_bytes
from collagan_dist.tasks.landmarks import draw_points, read_points
from collagan_dist.tasks.segmentation import colour, read_labels
from collagan_dist.types import Batch, World, image_from_pixels

logger = logging.getLogger(__name__)

OVERLAY_OPACITY = 0.45  # of the label colours over the completed picture
# Endings of the files that `complete` writes; a folder that holds some is not their source.
_RESULT_ENDINGS = (".completed.png", ".labels.png", ".sheet.png")


@dataclass(frozen=True)
class CompleteResult:
    """The sheets of completed pictures in the order of names, and (picture, reason) of those that were left out."""

    sheets: tuple[Path, ...]
    left_out: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class HoleSource:
    """Where the holes of pictures come from: a kind of holes.HOLES, one file for all pictures, or a folder with one for each."""

    kind: str | None
    path: Path | None = None

    def file(self, picture: Path) -> str | None:
        """Return the hole file of a picture, None for a kind. Raises DataError if the folder has none, or several."""
        if self.path is None or not self.path.is_dir():
            return str(self.path) if self.path else None
        stem = glob.escape(picture.stem)
        named = [self.path / f"{picture.stem}.png", *sorted(self.path.glob(f"{stem}_mask*.png"))]
        found = [
            p for p in named if p.is_file() and not _same(p, picture) and picture.stem in (p.stem, masked_name(p.name))
        ]
        if len(found) != 1:
            names = (
                ", ".join(p.name for p in found) if found else f"neither {picture.stem}.png nor {picture.stem}_mask.png"
            )
            raise DataError(f"{picture}: the folder of holes {self.path} has {names} for it; give it one hole")
        return str(found[0])


@dataclass(frozen=True)
class CompleteOptions:
    """How pictures are completed: blending, changed keys of the configuration, and the share of unusable pictures to accept."""

    blend: str = "none"
    sets: Sequence[str] = ()
    max_bad: float = MAX_BAD


def complete(
    run: Path, source: Path, out: Path, hole: str | None = None, options: CompleteOptions | None = None
) -> CompleteResult:
    """Complete a picture or all pictures of a folder.

    Writes NAME.completed.png, NAME.labels.png, NAME.landmarks.json (those of the model's tasks) and NAME.sheet.png. A picture
    that is unusable is named and left out. Raises ConfigError, and DataError when none or too few are completed.
    """
    options = options or CompleteOptions()
    config = read_config(run, sets=options.sets)
    pictures = _find_pictures(source)
    check_blends([options.blend], config.model.tasks)
    # Without inpainting a hole would only hide what is to be segmented.
    holes_of = _parse_hole(hole or ("block" if "inpainting" in config.model.tasks else "none"))
    device = devices.pick_device(World())
    engine = build_engine(config.runtime, Group(World(), device))
    predictor, _ = load_predictor(run, config, engine, build_tasks(config))
    quarter = config.evaluate.readout == "quarter"
    out.mkdir(parents=True, exist_ok=True)
    sheets, left_out = [], []
    for path in pictures:
        try:
            face = _read_face(path, config, holes_of, engine.device)
        except DataError as error:
            if source.is_dir():  # a single picture's is the error of the command
                logger.warning("warning: %s; left out", error)
            left_out.append((str(path), str(error)))
            continue
        outputs = BLENDS[options.blend](predictor(face.batch), face.batch)
        sheets.append(_write_results(out, path.stem, face, outputs, quarter))
    if not sheets:
        raise DataError(
            left_out[0][1] + (f" (and so on: none of {len(left_out)} is usable)" if len(left_out) > 1 else "")
        )
    check_bad_count(len(left_out), len(pictures), options.max_bad, "the others are completed")
    return CompleteResult(tuple(sheets), tuple(left_out))


def _parse_hole(hole: str) -> HoleSource:
    if hole in holes.HOLES:
        return HoleSource(hole)
    if not Path(hole).exists():
        raise ConfigError(
            f"--hole {hole}: must be a PNG file (white = hole), a folder of such files, or one of {', '.join(holes.HOLES)}"
        )
    return HoleSource(None, Path(hole))


def _find_pictures(source: Path) -> list[Path]:
    if not source.is_dir():
        # A pipe or a device is refused when it is read.
        if not source.exists():
            raise DataError(f"{source}: no such picture or folder")
        return [source]
    names = FolderOrArchive(str(source), recursive=False).list_pictures()
    results = [name for name in names if name.lower().endswith(_RESULT_ENDINGS)]
    if results:
        logger.info(
            "%s: %d results of an earlier call, such as %s, are not completed", source, len(results), results[0]
        )
    names, masks = split_masks(name for name in names if name not in set(results))
    if masks:
        logger.info(
            "%s: %d masks beside pictures, such as %s, are not completed; --hole %s takes them as holes",
            source, len(masks), masks[0], shell.quote(source),
        )  # fmt: skip
    found = [source / name for name in names]
    if not found:
        raise DataError(f"{source}: holds no picture ({', '.join(FORMATS)})")
    # Results are named by the stem, so that a.jpg and a.png would overwrite each other's.
    twice = [stem for stem, count in Counter(p.stem for p in found).items() if count > 1]
    if twice:
        raise DataError(f"{source}: two pictures are called {twice[0]}; rename one, their results would have one name")
    return found


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


@dataclass(frozen=True)
class Face:
    """A picture as a batch of one, which is in sRGB, and its square as stored, uint8 in the colours of `profile`."""

    batch: Batch
    square_HW3: np.ndarray
    profile: bytes | None


def _read_face(path: Path, config: Config, hole: HoleSource, device: torch.device) -> Face:
    """Read a picture and its hole. All random numbers derive from the picture's name, so that results repeat. Raises DataError."""
    size = config.data.image_size
    square, shape, profile = _read_square(path, size)
    srgb = to_srgb(square, profile)
    image = image_from_pixels(torch.from_numpy(srgb)[None].to(device))
    uid = np.array([rng.name_id(path.stem)])
    # Seed and epoch (-1) of evaluation, whatever seed the run was trained with.
    keys = torch.from_numpy(rng.sample_keys(TEST_SEED, -1, uid)).to(device)
    if (file := hole.file(path)) is None:
        assert hole.kind is not None
        kind, hole_11HW = hole.kind, holes.HOLES[hole.kind](keys, size, OcclusionBoxes(fixed=config.evaluate.fixed))
    else:
        kind, hole_11HW = "given", _load_hole(file, size, shape).to(device)
        _report_extreme_hole(path, file, hole_11HW)
    filled = holes.occlude(image, hole_11HW, kind, keys, config.hole.fill)
    return Face(Batch(image, filled, hole_11HW, None, None, uid, np.array([-1]), keys), square, profile)


def _read_square(path: Path, size: int) -> tuple[np.ndarray, tuple[int, int], bytes | None]:
    """Return a picture's square in its own colours, its (height, width) and its profile. Its other pixels take no memory any more."""
    try:
        # No annotation means its stored pixels, so it is seen as a viewer shows it; the hole is read alike.
        picture = read_picture(str(path), upright=True)
        return _square(picture.unconverted_HW3, size), (picture.height, picture.width), picture.profile
    except UnusablePicture as error:
        raise DataError(f"{path}: {error}") from None


def _report_extreme_hole(picture: Path, file: str, hole: torch.Tensor) -> None:
    if not hole.any():
        logger.warning(
            "warning: %s: its hole %s is empty in the square that is completed: nothing changes", picture, file
        )
    elif hole.all():
        logger.warning("warning: %s: its hole %s is full: nothing of the picture is given", picture, file)


def _square(pixels: np.ndarray, size: int) -> np.ndarray:
    """Return the centre square of an (H, W, 3) picture or an (H, W) hole, resized to `size` unless it has that size."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    if side == size:
        return square.copy()  # torch takes no array that is read-only
    if square.ndim == 2:  # averages of black and white would move the border
        return resize_nearest(square, (size, size))
    # Area averaging avoids aliasing but cannot enlarge.
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)


def _load_hole(path: str, size: int, picture: tuple[int, int]) -> torch.Tensor:
    """Read the hole of a picture of shape (height, width). One of the picture's own proportions is cut as the picture is.

    A square one is for the picture's centre square. Raises DataError.
    """
    hole = read_hole(path)
    height, width = hole.shape
    # Products, not quotients: proportions are compared exactly.
    if height != width and height * picture[1] != width * picture[0]:
        raise DataError(
            f"{path}: this hole is {width}x{height}, of another shape than the picture ({picture[1]}x{picture[0]}); give a hole of the "
            "picture's shape, or a square one for its centre square"
        )
    return torch.from_numpy(_square(hole, size))[None, None]


def _write_results(out: Path, name: str, face: Face, outputs: TaskTensors, quarter: bool) -> Path:
    batch = face.batch
    # A model without inpainting completes nothing; its sheet shows the input.
    done = composite(outputs["inpainting"], batch) if "inpainting" in outputs else batch.input_B3HW
    overlay = done.float()
    points = read_points(outputs["landmarks"], quarter) if "landmarks" in outputs else None
    for ending, content in _encode_results(face, done, outputs, points):
        files.write_bytes(out / f"{name}.{ending}", content)
    if "segmentation" in outputs:
        overlay = overlay * (1 - OVERLAY_OPACITY) + colour(read_labels(outputs["segmentation"])) * OVERLAY_OPACITY
    if points is not None:
        overlay = draw_points(overlay, torch.from_numpy(points).to(done.device))
    sheet = out / f"{name}.sheet.png"
    files.write_bytes(sheet, encode_png(draw_grid({"masked": batch.input_B3HW, "completed": done, "overlay": overlay})))
    return sheet


def _encode_results(
    face: Face, done: torch.Tensor, outputs: TaskTensors, points: np.ndarray | None
) -> Iterator[tuple[str, bytes]]:
    """Yield (ending, content) of the files of one picture."""
    if "inpainting" in outputs:
        inside = face.batch.hole_B1HW[0, 0].cpu().numpy()[..., None]
        # Pixels outside the hole are those of the picture; colours of the completed ones are put into its profile.
        pixels = np.where(inside, from_srgb(to_bytes(done)[0], face.profile), face.square_HW3)
        yield "completed.png", encode_png(pixels, face.profile)
    if "segmentation" in outputs:
        yield "labels.png", encode_png(read_labels(outputs["segmentation"])[0].cpu().numpy())
    if points is not None:
        yield "landmarks.json", (str(points[0].round(2).tolist()) + "\n").encode()
