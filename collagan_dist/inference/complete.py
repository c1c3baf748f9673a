"""`collagan complete`: complete pictures of any source with a trained generator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from collagan_dist import files, rng
from collagan_dist.config.tree import Config
from collagan_dist.data.loading import holes
from collagan_dist.data.loading.occlusion_boxes import OcclusionBoxes
from collagan_dist.data.readers.archives import PICTURE_SUFFIXES
from collagan_dist.data.readers.picture import UnusablePicture, read_picture
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

OVERLAY_OPACITY = 0.45  # of the label colours over the completed picture


def complete(
    run: Path, source: Path, out: Path, hole: str | None = None, blend: str = "none", sets: Sequence[str] = ()
) -> list[Path]:
    """Complete a picture or all pictures of a folder; return the sheets, one per picture, in the order of names.

    Writes NAME.completed.png, NAME.labels.png, NAME.landmarks.json (those of the model's tasks) and NAME.sheet.png. Raises
    ConfigError, DataError.
    """
    config = read_config(run, sets=sets)
    pictures = _find_pictures(source)
    check_blends([blend], config.model.tasks)
    # Without inpainting a hole would only hide what is to be segmented.
    hole = hole or ("block" if "inpainting" in config.model.tasks else "none")
    if hole not in holes.HOLES and not Path(hole).is_file():
        raise ConfigError(f"--hole {hole}: must be a PNG file (white = hole) or one of {', '.join(holes.HOLES)}")
    device = devices.pick_device(World())
    engine = build_engine(config.runtime, Group(World(), device))
    tasks = build_tasks(config)
    predictor, _ = load_predictor(run, config, engine, tasks)
    quarter = config.evaluate.readout == "quarter"
    out.mkdir(parents=True, exist_ok=True)
    sheets = []
    for path in pictures:
        batch = _load_batch(path, config, hole, engine.device)
        sheets.append(_write_results(out, path.stem, batch, BLENDS[blend](predictor(batch), batch), quarter))
    return sheets


def _find_pictures(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"{source}: no such picture or folder")
    # Names with a dot are files that other programs leave, such as ._a.jpg of macOS.
    found = sorted(p for p in source.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and not p.name.startswith("."))
    if not found:
        raise DataError(f"{source}: holds no picture ({', '.join(PICTURE_SUFFIXES)})")
    # Results are named by the stem, so that a.jpg and a.png would overwrite each other's.
    stems = [p.stem for p in found]
    if len(set(stems)) < len(stems):
        twice = next(s for s in stems if stems.count(s) > 1)
        raise DataError(f"{source}: two pictures are called {twice}; rename one, their results would have one name")
    return found


def _load_batch(path: Path, config: Config, hole: str, device: torch.device) -> Batch:
    """Return a batch of one picture. All its random numbers derive from its name, so that results repeat."""
    size = config.data.image_size
    try:
        pixels = read_picture(str(path)).pixels_HW3
    except UnusablePicture as error:
        raise DataError(f"{path}: {error}") from None
    image = image_from_pixels(torch.from_numpy(_square(pixels, size))[None].to(device))
    uid = np.array([rng.name_id(path.stem)])
    # Seed and epoch (-1) of evaluation, whatever seed the run was trained with.
    keys = torch.from_numpy(rng.sample_keys(TEST_SEED, -1, uid)).to(device)
    if hole in holes.HOLES:
        kind, mask = hole, holes.HOLES[hole](keys, size, OcclusionBoxes(fixed=config.evaluate.fixed))
    else:
        kind, mask = "given", _read_hole(hole, size, pixels.shape[:2]).to(device)
    filled = holes.occlude(image, mask, kind, keys, config.hole.fill)
    return Batch(image, filled, mask, None, None, uid, np.array([-1]), keys)


def _square(pixels_HW3: np.ndarray, size: int, method: int | None = None) -> np.ndarray:
    """Return the centre square, resized to `size` unless it has that size."""
    height, width = pixels_HW3.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(pixels_HW3[top : top + side, left : left + side])
    if side == size:
        return square
    if method is None:
        # Area averaging avoids aliasing but cannot enlarge.
        method = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return cv2.resize(square, (size, size), interpolation=method)


def _read_hole(path: str, size: int, picture: tuple[int, ...]) -> torch.Tensor:
    """Read the hole of a picture of shape (height, width). One of the picture's own proportions is cut as the picture is.

    A square one is for the picture's centre square. Raises DataError.
    """
    mask = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise DataError(f"{path}: is no picture; a hole is a PNG, white where the face is to be completed")
    height, width = mask.shape
    # Products, not quotients: proportions are compared exactly.
    if height != width and height * picture[1] != width * picture[0]:
        raise DataError(
            f"{path}: is {width}x{height}, of another shape than the picture ({picture[1]}x{picture[0]}); give a hole of the picture's "
            "shape, or a square one for its centre square"
        )
    # Nearest neighbour: averages of black and white would move the border.
    return torch.from_numpy(_square(mask, size, cv2.INTER_NEAREST) > 127)[None, None]


def _write_results(out: Path, name: str, batch: Batch, outputs: TaskTensors, quarter: bool) -> Path:
    # A model without inpainting completes nothing; its sheet shows the input.
    done = composite(outputs["inpainting"], batch) if "inpainting" in outputs else batch.input_B3HW
    overlay = done.float()
    points = read_points(outputs["landmarks"], quarter) if "landmarks" in outputs else None
    for ending, content in _encode_results(done, outputs, points):
        files.write_bytes(out / f"{name}.{ending}", content)
    if "segmentation" in outputs:
        overlay = overlay * (1 - OVERLAY_OPACITY) + colour(read_labels(outputs["segmentation"])) * OVERLAY_OPACITY
    if points is not None:
        overlay = draw_points(overlay, torch.from_numpy(points).to(done.device))
    sheet = out / f"{name}.sheet.png"
    files.write_bytes(sheet, encode_png(draw_grid({"masked": batch.input_B3HW, "completed": done, "overlay": overlay})))
    return sheet


def _encode_results(done: torch.Tensor, outputs: TaskTensors, points: np.ndarray | None) -> Iterator[tuple[str, bytes]]:
    """Yield (ending, content) of the files of one picture."""
    if "inpainting" in outputs:
        yield "completed.png", encode_png(to_bytes(done)[0])
    if "segmentation" in outputs:
        yield "labels.png", encode_png(read_labels(outputs["segmentation"])[0].cpu().numpy())
    if points is not None:
        yield "landmarks.json", (str(points[0].round(2).tolist()) + "\n").encode()
