"""`collagan draw`: a folder of drawn faces in CelebA's layout, which appears when it is complete."""

from __future__ import annotations

import json
import multiprocessing
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import cv2
import numpy as np
import simplejpeg

from collagan_dist import structured
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.faces.render import draw_face
from collagan_dist.types import CLASSES

# To be raised when (seed, number) gives another picture, so that a folder of an older version is not taken for a new one.
VERSION: Final = 1
_JPEG_QUALITY: Final = 92
_IMAGES: Final = Path("Img/img_celeba")
_LABELS: Final = Path("Label/img_celeba")
_STAMP_FILE: Final = "draw.json"
# Faces that a worker draws at a time: enough to hide the cost of handing over, few enough to show progress.
_CHUNK_FACES: Final = 32
# A partial folder without a new picture for this long belongs to a killed process.
_LEFTOVER_SECONDS: Final = 3600.0
_POINTS_HEADER: Final = (
    "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
)
_BOX_HEADER: Final = "image_id x_1 y_1 width height"


class _Stamp(structured.Record):
    """The content of draw.json."""

    drawing: Literal["collagan draw"] = "collagan draw"
    version: int = VERSION
    seed: int
    count: int
    # Left out of the file where it is 1: drawings of the time before it are the same.
    coupling: float = 1.0

    def text(self) -> str:
        return json.dumps(self.model_dump(exclude={"coupling"} if self.coupling == 1 else None))

    def __str__(self) -> str:
        return f"{self.count} faces of seed {self.seed}{self.coupling_text}"

    @property
    def coupling_text(self) -> str:
        return "" if self.coupling == 1 else f", coupling {self.coupling:g}"


@dataclass(frozen=True)
class _Row:
    """One line of the annotation files: five points (x, y) and a box (x, y, width, height) in whole pixels."""

    number: int
    points: tuple[int, ...]
    box: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.number:06d}.jpg"


def draw_faces(
    out: Path, count: int, seed: int, workers: int = 0, progress: Callable[[int], None] | None = None,
    coupling: float = 1.0
) -> None:  # fmt: skip
    """Draw faces 1 to `count` of a seed into `out`; the bytes do not depend on `workers` (0: one per CPU).

    The folder appears when it is complete. A finished drawing of the same seed, count and coupling (sampling.sample_traits)
    is left as it is. `progress` is called with the number of finished faces. Raises ConfigError, and DataError when `out` holds something else.
    """
    if count < 1:
        raise ConfigError(f"cannot draw {count} faces into {out}: the count must be at least 1")
    out, drawing = Path(out), _Stamp(seed=seed, count=count, coupling=coupling)
    if _is_finished(out, drawing):
        return
    _delete_leftovers(out)
    partial = out.parent / f".{out.name}.partial-{secrets.token_hex(4)}"
    try:
        for folder in (_IMAGES, _LABELS, Path("Anno"), Path("Eval")):
            (partial / folder).mkdir(parents=True)
        rows: list[_Row] = []
        for chunk in _draw_in_chunks(partial, drawing, workers or os.cpu_count() or 1):
            rows += chunk
            if progress is not None:
                progress(len(rows))
        _write_lists(partial, rows)
        _write_stamp(partial, drawing)
        # Another process may have finished the same drawing meanwhile; renaming over its folder would fail.
        if not _is_finished(out, drawing):
            partial.rename(out)
    except OSError as error:
        raise DataError(
            f"cannot write the drawn faces to {out}: {error}; choose a writable folder with enough room"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_finished(out: Path, drawing: _Stamp) -> bool:
    """Return whether `out` is this drawing. Raises DataError when it holds something else."""
    if not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir())):
        return False
    found = structured.find(out / _STAMP_FILE, _Stamp)
    if found == drawing:
        return True
    what = f"another drawing ({found})" if found else "something that is not a drawing"
    raise DataError(f"{out} already holds {what}, not {drawing}; name another folder or remove this one")


def _delete_leftovers(out: Path) -> None:
    """Delete partial folders of killed processes beside `out`."""
    if not out.parent.is_dir():
        return
    for leftover in out.parent.glob(f".{out.name}.partial-*"):
        # Each new picture of a running process changes the time of its folder.
        try:
            touched = (leftover / _IMAGES).stat().st_mtime
        except OSError:
            continue  # another process has deleted it
        if time.time() - touched > _LEFTOVER_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)


def _draw_in_chunks(folder: Path, drawing: _Stamp, workers: int) -> Iterator[list[_Row]]:
    """Yield the lines of the annotation files in order of number, chunk by chunk, once the pictures are written."""
    end = drawing.count + 1
    tasks = [(folder, drawing, first, min(first + _CHUNK_FACES, end)) for first in range(1, end, _CHUNK_FACES)]
    workers = min(workers, len(tasks))
    if workers == 1:
        yield from map(_draw_chunk, tasks)
        return
    # Spawned, not forked: a fork of a process with threads of torch or OpenCV may deadlock.
    context = multiprocessing.get_context("spawn")
    # Ctrl-C is sent to the whole process group. The parent answers it, and ends its workers.
    pool = ProcessPoolExecutor(workers, context, signal.signal, (signal.SIGINT, signal.SIG_IGN))
    try:
        yield from pool.map(_draw_chunk, tasks)
    finally:
        pool.shutdown(cancel_futures=True)


def _draw_chunk(task: tuple[Path, _Stamp, int, int]) -> list[_Row]:
    """Draw and write faces [first, last) of a drawing."""
    folder, drawing, first, last = task
    threads = cv2.getNumThreads()
    # Faces are drawn in parallel already; OpenCV's own threads would only compete.
    cv2.setNumThreads(1)
    try:
        return [_draw_one(folder, drawing, number) for number in range(first, last)]
    finally:
        cv2.setNumThreads(threads)


def _draw_one(folder: Path, drawing: _Stamp, number: int) -> _Row:
    picture, labels, points = draw_face(drawing.seed, number, drawing.coupling)
    jpeg = simplejpeg.encode_jpeg(picture, quality=_JPEG_QUALITY, colorspace="RGB", colorsubsampling="420")
    (folder / _IMAGES / f"{number:06d}.jpg").write_bytes(jpeg)
    _, png = cv2.imencode(".png", labels, (cv2.IMWRITE_PNG_COMPRESSION, 1))
    (folder / _LABELS / f"{number:06d}.png").write_bytes(png.tobytes())
    # The box of the face without hair.
    x, y, width, height = cv2.boundingRect(((labels > 0) & (labels < CLASSES.index("hair"))).astype(np.uint8))
    return _Row(number, tuple(int(v) for v in np.rint(points).ravel()), (x, y, width, height))


def _write_lists(folder: Path, rows: list[_Row]) -> None:
    """Write the annotation and split files with CelebA's headers and columns."""
    count = len(rows)
    points = [f"{row.name} " + " ".join(f"{value:4d}" for value in row.points) for row in rows]
    boxes = [f"{row.name}    " + " ".join(f"{value:3d}" for value in row.box) for row in rows]
    # 0 train, 1 valid, 2 test: 80, 10 and 10 per cent in order of number.
    splits = [f"{row.name} {(row.number > count * 8 // 10) + (row.number > count * 9 // 10)}" for row in rows]
    _write(folder / "Anno/list_landmarks_celeba.txt", [str(count), _POINTS_HEADER, *points])
    _write(folder / "Anno/list_bbox_celeba.txt", [str(count), _BOX_HEADER, *boxes])
    _write(folder / "Eval/list_eval_partition.txt", splits)


def _write_stamp(folder: Path, drawing: _Stamp) -> None:
    classes = ", ".join(f"{value} {name.replace('_', ' ')}" for value, name in enumerate(CLASSES))
    coupling = drawing.coupling_text
    _write(
        folder / "README.txt",
        [
            f"{drawing.count} drawn faces, seed {drawing.seed}{coupling}. Nobody is shown: every face is computed from its seed and number.",
            f"Made by: collagan draw (count {drawing.count}, seed {drawing.seed}{coupling})",
            "",
            "The folders and files are laid out like CelebA's:",
            f"  {_IMAGES}/NNNNNN.jpg                pictures, 360 x 440",
            f"  {_LABELS}/NNNNNN.png              label maps of the same size: {classes}",
            "  Anno/list_landmarks_celeba.txt      five points in pixels",
            "  Anno/list_bbox_celeba.txt           boxes around the faces",
            "  Eval/list_eval_partition.txt        0 train, 1 valid, 2 test",
            "Left and right are those of the picture. Ears, neck and clothes are background; glasses' frames are face.",
        ],
    )
    _write(folder / _STAMP_FILE, [drawing.text()])


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
