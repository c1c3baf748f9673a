"""Figures 1, 3, 4, 5 and 6 of the paper, drawn from our runs."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from collagan_dist import files
from collagan_dist.config.load import config_to_dict
from collagan_dist.errors import CollaganError
from collagan_dist.report import paper_tables
from collagan_dist.reproduce import run_status
from collagan_dist.reproduce.plan import FIGURES, PlannedRun

if TYPE_CHECKING:
    from collagan_dist.reproduce.sample_predictions import SamplePredictions

NAMES = {
    "M_i": "$M_i$", "M_id": "$M_{i,d}$", "M_is": "$M_{i,s}$", "M_isd": "$M_{i,s,d}$", "M*_isd": "$M^*_{i,s,d}$",
    "CE": "CE", "SII": "SII", "GFC": "GFC",
}  # fmt: skip
_DPI = 160
_CELL_INCHES = 1.0  # the side of a picture
_SAMPLES = 4  # of Figures 1, 3 and 4
_SAMPLES_A_HOLE = 3  # of each kind of hole in Figure 5
_HOLES = ("block", "pattern", "noise")
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
    sizes = {NAMES[run.base.removesuffix("-noise")]: run.config.data.image_size for run in used}
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
    """Return a hash of everything that a figure shows."""
    facts = [number, data, list(missing), [[run.name, run.steps, config_to_dict(run.config)] for run in used]]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _drawn_from(path: Path) -> str | None:
    """Return the hash of what an existing figure was drawn from."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.info.get(_SOURCES_KEY)
    except OSError:
        return None


def _png(figure: Any, sources: str, note: str) -> bytes:
    """Return the figure as PNG, with a note below it and in the PNG's Description."""
    buffer = io.BytesIO()
    # Without matplotlib's version the same runs give the same bytes.
    metadata = {_SOURCES_KEY: sources, "Software": None}
    more: dict[str, Any] = {}
    if note:
        figure.text(0.5, -0.01, note, ha="center", va="top", fontsize=8)
        # The tight box takes in the note, which is below the figure.
        metadata["Description"], more = note.replace("$", ""), {"bbox_inches": "tight", "pad_inches": 0.05}
    figure.savefig(buffer, format="png", dpi=_DPI, metadata=metadata, **more)
    return buffer.getvalue()


def _figure1(predict: Predict) -> Any:
    ours, alone = predict("M*_isd", "block", _SAMPLES), predict("M_i", "block", _SAMPLES)
    any_of = ours or alone
    columns = [_all(any_of, "original"), _all(any_of, "masked"), _all(ours, "composite"), _all(alone, "composite"),
               _all(ours, "overlay")]  # fmt: skip
    titles = ["(a) original", "(b) masked", "(c) with\ncollaboration", "(d) top:\nwithout it",
              "(d) bottom:\nlabels over (c)"]  # fmt: skip
    return _columns(columns, titles)


def _figure3(predict: Predict) -> Any:
    ours = predict("M*_isd", "block", _SAMPLES)
    columns = [_all(ours, name) for name in ("original", "masked", "raw", "composite")]
    output = f"(c) output of\n{NAMES['M*_isd']}"
    return _columns(columns, ["(a) original", "(b) masked", output, "(d) composite\n(eq. 5)"])


def _figure4(predict: Predict) -> Any:
    predictions = {name: predict(name, "block", _SAMPLES) for name in FIGURES[4]}
    first = next(one for one in predictions.values() if one is not None)
    completed = [_all(one, "composite") for one in predictions.values()]
    columns = [_all(first, "original"), _all(first, "masked"), *completed]
    titles = ["original", "masked", *(NAMES[name] for name in predictions)]
    return _columns(columns, [f"({letter}) {title}" for letter, title in zip("abcdefg", titles, strict=True)])


def _figure5(predict: Predict) -> Any:
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
    labels = ["(a)", "(b)", "(c) " + NAMES["M*_isd"], "(d) CE", "(e) SII", "(f) GFC"]
    return _layout(rows, left=labels, below=[f"random {kind} mask" for kind in _HOLES])


def _figure6(predict: Predict) -> Any:
    from matplotlib.figure import Figure

    predictions = {name: predict(name, "block", 1) for name in FIGURES[6]}
    first = next(one for one in predictions.values() if one is not None)
    figure = Figure(figsize=(10.5, 5.0), layout="constrained")
    grid = figure.add_gridspec(2, 3, width_ratios=(1, 2, 2))
    for row, (name, picture) in enumerate((("original", first.original[0]), ("masked", first.masked[0]))):
        _show(figure.add_subplot(grid[row, 0]), picture, f"(a) {name}")
    for column, (letter, (name, one)) in enumerate(zip("bc", predictions.items(), strict=True), start=1):
        axes = figure.add_subplot(grid[:, column])
        if one is None:
            _show(axes, None, f"({letter}) {NAMES[name]}")
            continue
        found = one.features(0)
        text = f"mean activation {found.inside:.3g} in the hole, {found.outside:.3g} around it"
        _show(axes, mosaic(found.maps_CHW), f"({letter}) {NAMES[name]}: {len(found.maps_CHW)} maps\n{text}")
    return figure


_FIGURES: dict[int, Callable[[Predict], Any]] = {1: _figure1, 3: _figure3, 4: _figure4, 5: _figure5, 6: _figure6}


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


def _columns(columns: Sequence[np.ndarray | None], titles: Sequence[str]) -> Any:
    count = min(_SAMPLES, max(len(c) for c in columns if c is not None))
    return _layout([[_nth(column, row) for column in columns] for row in range(count)], top=titles)


def _layout(rows: Grid, top: Sequence[str] = (), left: Sequence[str] = (), below: Sequence[str] = ()) -> Any:
    """Return a figure of pictures in a grid, with titles above columns, beside rows and below groups of columns."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_CELL_INCHES * len(rows[0]) + (0.9 if left else 0.1), _CELL_INCHES * len(rows) + 0.45))
    # Margins in inches for the titles, as the shares of the figure that matplotlib wants.
    margins = {"left": 0.9 / figure.get_figwidth() if left else 0.01, "right": 0.99}
    margins |= {
        "top": 1 - (0.42 if top else 0.03) / figure.get_figheight(),
        "bottom": (0.3 if below else 0.03) / figure.get_figheight(),
    }
    margins |= {"wspace": 0.04, "hspace": 0.04}
    axes = figure.subplots(len(rows), len(rows[0]), squeeze=False, gridspec_kw=margins)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            _show(axes[row, column], picture, top[column] if row == 0 and top else "")
        if left:
            one = axes[row, 0]
            one.text(-0.08, 0.5, left[row], transform=one.transAxes, ha="right", va="center", fontsize=9)
    group = len(rows[0]) // len(below) if below else 0
    for number, text in enumerate(below):
        one = axes[-1, number * group + group // 2]
        one.text(0.5, -0.22, text, transform=one.transAxes, ha="center", fontsize=9)
    return figure


def _show(axes: Any, picture: np.ndarray | None, title: str) -> None:
    axes.set_axis_off()
    if picture is not None:
        axes.imshow(picture, interpolation="nearest")
    else:
        axes.set_box_aspect(1)  # as large as a picture
    if title:
        axes.set_title(title, fontsize=9, pad=3)
