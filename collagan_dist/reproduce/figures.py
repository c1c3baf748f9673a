"""Figures 1, 3, 4, 5 and 6 of the paper, drawn from our runs."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from collagan_dist import files
from collagan_dist.config.load import config_to_dict
from collagan_dist.errors import CollaganError
from collagan_dist.inference.sheet import draw_sheet, with_note
from collagan_dist.report import paper_tables
from collagan_dist.reproduce import run_status
from collagan_dist.reproduce.plan import FIGURES, PlannedRun

if TYPE_CHECKING:
    from collagan_dist.reproduce.sample_predictions import SamplePredictions

_MOSAIC_SIDE = 384  # pixels, at least: Figure 6 shows each map of a layer
_COLUMN_GAP = 16  # pixels between them
_SAMPLES = 4  # of Figures 1, 3 and 4
_SAMPLES_A_HOLE = 3  # of each kind of hole in Figure 5
_HOLES = ("block", "pattern", "noise")
_DRAWING = 2  # raised where figures are drawn differently, so that kept reproductions get the new ones
_SOURCES_KEY = "collagan"  # of the PNG's text: a hash of what it was drawn from

# predict(run, kind of hole, number of samples): None if the run is not trained.
Predict = Callable[..., "SamplePredictions | None"]
Grid = list[list[np.ndarray | None]]  # rows of pictures; None for an empty place


def draw_figure(number: int, runs: Mapping[str, PlannedRun], data: str, out: Path) -> str | None:
    """Write OUT/figureN.png, with empty places for runs that are not trained.

    Return why it is incomplete, or None. A figure that was drawn from the same runs is left as it is.
    """
    used = [runs[name] for name in FIGURES[number]]
    missing = [run.name for run in used if not run_status.is_trained(run)]
    sizes = {run.base.removesuffix("-noise"): run.config.data.image_size for run in used}
    note = paper_tables.picture_sizes(sizes)
    path = out / f"figure{number}.png"
    sources = _sources(number, used, data, [*missing, *([note] if note else [])])
    if len(missing) < len(used) and _drawn_from(path) != sources:
        from collagan_dist.reproduce.sample_predictions import SamplePredictions

        def predict(name: str, hole: str, count: int) -> SamplePredictions | None:
            return None if name in missing else SamplePredictions(runs[name], data, hole, count)

        try:
            files.write_bytes(path, _png(_FIGURES[number](predict), sources, f"Pictures of {note}." if note else ""))
        except CollaganError as error:
            return str(error)
    return f"not trained: {', '.join(missing)}" if missing else None


def _sources(number: int, used: Sequence[PlannedRun], data: str, missing: Sequence[str]) -> str:
    """Return a hash of everything that a figure shows, and of how it is drawn."""
    facts = [_DRAWING, number, data, list(missing), [[run.name, run.steps, config_to_dict(run.config)] for run in used]]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _drawn_from(path: Path) -> str | None:
    """Return the hash of what an existing figure was drawn from."""
    try:
        with Image.open(path) as image:
            return image.info.get(_SOURCES_KEY)
    except OSError:
        return None


def _png(sheet: np.ndarray, sources: str, note: str) -> bytes:
    """Return the sheet as PNG, with a note below it and in the PNG's Description."""
    text = PngInfo()
    text.add_text(_SOURCES_KEY, sources)
    if note:
        text.add_text("Description", note)
        sheet = with_note(sheet, note)
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "PNG", optimize=True, pnginfo=text)
    return buffer.getvalue()


def _figure1(predict: Predict) -> np.ndarray:
    ours, alone = predict("M*_isd", "block", _SAMPLES), predict("M_i", "block", _SAMPLES)
    any_of = ours or alone
    columns = [_all(any_of, "original"), _all(any_of, "masked"), _all(ours, "composite"), _all(alone, "composite"),
               _all(ours, "overlay")]  # fmt: skip
    titles = ["(a) original", "(b) masked", "(c) with\ncollaboration", "(d) top:\nwithout it",
              "(d) bottom:\nlabels over (c)"]  # fmt: skip
    return _columns(columns, titles)


def _figure3(predict: Predict) -> np.ndarray:
    ours = predict("M*_isd", "block", _SAMPLES)
    columns = [_all(ours, name) for name in ("original", "masked", "raw", "composite")]
    output = "(c) output of\nM*_isd"
    return _columns(columns, ["(a) original", "(b) masked", output, "(d) composite\n(eq. 5)"])


def _figure4(predict: Predict) -> np.ndarray:
    predictions = {name: predict(name, "block", _SAMPLES) for name in FIGURES[4]}
    first = next(one for one in predictions.values() if one is not None)
    completed = [_all(one, "composite") for one in predictions.values()]
    columns = [_all(first, "original"), _all(first, "masked"), *completed]
    titles = ["original", "masked", *predictions]
    return _columns(columns, [f"({letter}) {title}" for letter, title in zip("abcdefg", titles, strict=True)])


def _figure5(predict: Predict) -> np.ndarray:
    """Draw models in rows and three samples of each kind of hole in columns."""
    rows: Grid = [[] for _ in range(6)]
    for number, kind in enumerate(_HOLES):
        # As in the paper: models trained with blocks complete patterns, too; for noise there are others, and no GFC.
        suffix = "-noise" if kind == "noise" else ""
        models = [f"M*_isd{suffix}", f"CE{suffix}", "SII", None if kind == "noise" else "GFC"]
        count = _SAMPLES_A_HOLE * len(_HOLES)
        predictions = [None if model is None else predict(model, kind, count) for model in models]
        first = next((one for one in predictions if one is not None), None)
        content = [_all(first, "original"), _all(first, "masked"), *(_all(one, "blended") for one in predictions)]
        for row, pictures in zip(rows, content, strict=True):
            # Each kind of hole shows faces of its own.
            row += [_nth(pictures, _SAMPLES_A_HOLE * number + column) for column in range(_SAMPLES_A_HOLE)]
    labels = ["(a)", "(b)", "(c) M*_isd", "(d) CE", "(e) SII", "(f) GFC"]
    return draw_sheet(rows, left=labels, below=[f"random {kind} mask" for kind in _HOLES])


def _figure6(predict: Predict) -> np.ndarray:
    """Draw the picture in the first column and the maps of each model in one of its own."""
    predictions = {name: predict(name, "block", 1) for name in FIGURES[6]}
    first = next(one for one in predictions.values() if one is not None)
    found = {name: one.features(0) for name, one in predictions.items() if one is not None}
    mosaics = {name: _square_mosaic(one.maps_CHW) for name, one in found.items()}
    side = max(_MOSAIC_SIDE, *map(len, mosaics.values()))
    seen = {"original": first.original[0], "masked": first.masked[0]}
    # Two pictures are about as high as a mosaic.
    columns = [
        np.concatenate([draw_sheet([[one]], [f"(a) {name}"], side=side * 9 // 20) for name, one in seen.items()])
    ]
    for letter, name in zip("bc", predictions, strict=True):
        head = f"({letter}) {name}"
        if one := found.get(name):
            head += (
                f": {len(one.maps_CHW)} maps\nmean activation {one.inside:.3g} in the hole, {one.outside:.3g} around it"
            )
        columns.append(draw_sheet([[mosaics.get(name)]], [head], side=side))
    height = max(map(len, columns))
    return np.concatenate([_padded(column, height, _COLUMN_GAP) for column in columns], axis=1)


def _square_mosaic(maps_CHW: np.ndarray) -> np.ndarray:
    sheet = mosaic(maps_CHW)
    return _padded(sheet, sheet.shape[1])


def _padded(sheet: np.ndarray, height: int, gap: int = 0) -> np.ndarray:
    """Return the sheet with white below it, to a height, and at its right."""
    return np.pad(sheet, ((0, height - len(sheet)), (0, gap), (0, 0)), constant_values=255)


_FIGURES: dict[int, Callable[[Predict], np.ndarray]] = {1: _figure1, 3: _figure3, 4: _figure4, 5: _figure5, 6: _figure6}


def mosaic(maps_CHW: np.ndarray, gap: int = 2) -> np.ndarray:
    """Return all maps in one nearly square grid, each scaled from its own minimum (black) to its maximum (white)."""
    count, height, width = maps_CHW.shape
    low, high = maps_CHW.min(axis=(1, 2), keepdims=True), maps_CHW.max(axis=(1, 2), keepdims=True)
    # A constant map stays black.
    scaled = (maps_CHW - low) / np.where(high > low, high - low, 1)
    across = int(np.ceil(np.sqrt(count)))
    down = int(np.ceil(count / across))
    sheet = np.ones((down * (height + gap) - gap, across * (width + gap) - gap))
    for number, one in enumerate(scaled):
        top, left = number // across * (height + gap), number % across * (width + gap)
        sheet[top : top + height, left : left + width] = one
    return np.repeat(np.round(sheet * 255).astype(np.uint8)[..., None], 3, axis=2)


def _all(predictions: SamplePredictions | None, name: str) -> np.ndarray | None:
    return None if predictions is None else getattr(predictions, name)


def _nth(pictures: np.ndarray | None, number: int) -> np.ndarray | None:
    # A test split with fewer samples starts again from the first.
    return None if pictures is None else pictures[number % len(pictures)]


def _columns(columns: Sequence[np.ndarray | None], titles: Sequence[str]) -> np.ndarray:
    count = min(_SAMPLES, max(len(c) for c in columns if c is not None))
    return draw_sheet([[_nth(column, row) for column in columns] for row in range(count)], top=titles)
