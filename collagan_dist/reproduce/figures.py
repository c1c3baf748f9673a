"""Figures 1, 3, 4, 5 and 6 of the paper, from our runs."""

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
_CELL = 1.0  # inches of a picture's side
_ROWS = 4  # samples of Figures 1, 3 and 4
_THREE = 3  # samples a kind of hole in Figure 5
_KINDS = ("block", "pattern", "noise")
_KEY = "collagan"  # of the PNG's text that says what it was drawn from

Shoot = Callable[..., "SamplePredictions | None"]
Grid = list[list[np.ndarray | None]]  # rows of pictures; None where there is none


def draw_figure(number: int, runs: Mapping[str, PlannedRun], data: str, out: Path) -> str | None:
    """Write OUT/figureN.png, with empty places for what is not trained; why it is not whole, or None.

    A figure that was drawn from the same runs is left as it is.
    """
    used = [runs[name] for name in FIGURES[number]]
    missing = [run.name for run in used if not run_status.is_trained(run)]
    sizes = {NAMES[run.base.removesuffix("-noise")]: run.config.data.image_size for run in used}
    note = paper_tables.picture_sizes(sizes)
    path, key = out / f"figure{number}.png", _key(number, used, data, [*missing, *([note] if note else [])])
    if len(missing) < len(used) and _drawn_from(path) != key:
        from collagan_dist.reproduce.sample_predictions import SamplePredictions

        def shoot(name: str, hole: str, count: int) -> SamplePredictions | None:
            return None if name in missing else SamplePredictions(runs[name], data, hole, count)

        try:
            files.write_bytes(path, _png(_FIGURES[number](shoot), key, f"Pictures of {note}." if note else ""))
        except CollaganError as error:
            return str(error)
    return f"not trained: {', '.join(missing)}" if missing else None


def _key(number: int, used: Sequence[PlannedRun], data: str, missing: Sequence[str]) -> str:
    facts = [number, data, list(missing), [[run.name, run.steps, config_to_dict(run.config)] for run in used]]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _drawn_from(path: Path) -> str | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.info.get(_KEY)
    except OSError:
        return None


def _png(figure: Any, key: str, note: str) -> bytes:
    """The figure with a note below it; the PNG's Description has its words, too."""
    buffer = io.BytesIO()
    metadata = {_KEY: key, "Software": None}
    more: dict[str, Any] = {}
    if note:
        figure.text(0.5, -0.01, note, ha="center", va="top", fontsize=8)
        metadata["Description"], more = note.replace("$", ""), {"bbox_inches": "tight", "pad_inches": 0.05}
    figure.savefig(buffer, format="png", dpi=_DPI, metadata=metadata, **more)
    return buffer.getvalue()


def _figure1(shoot: Shoot) -> Any:
    ours, alone = shoot("M*_isd", "block", _ROWS), shoot("M_i", "block", _ROWS)
    any_of = ours or alone
    columns = [
        _all(any_of, "original"),
        _all(any_of, "masked"),
        _all(ours, "composite"),
        _all(alone, "composite"),
        _all(ours, "overlay"),
    ]
    titles = [
        "(a) original",
        "(b) masked",
        "(c) with\ncollaboration",
        "(d) top:\nwithout it",
        "(d) bottom:\nlabels over (c)",
    ]
    return _columns(columns, titles)


def _figure3(shoot: Shoot) -> Any:
    ours = shoot("M*_isd", "block", _ROWS)
    columns = [_all(ours, name) for name in ("original", "masked", "raw", "composite")]
    return _columns(
        columns, ["(a) original", "(b) masked", "(c) output of\n" + NAMES["M*_isd"], "(d) composite\n(eq. 5)"]
    )


def _figure4(shoot: Shoot) -> Any:
    shots = {name: shoot(name, "block", _ROWS) for name in FIGURES[4]}
    first = next(one for one in shots.values() if one is not None)
    columns = [_all(first, "original"), _all(first, "masked"), *(_all(one, "composite") for one in shots.values())]
    titles = ["original", "masked", *(NAMES[name] for name in shots)]
    return _columns(columns, [f"({letter}) {title}" for letter, title in zip("abcdefg", titles, strict=True)])


def _figure5(shoot: Shoot) -> Any:
    """Rows are models; nine columns, of which three a kind of hole. Models trained with blocks fill patterns, too."""
    rows: Grid = [[] for _ in range(6)]
    for number, kind in enumerate(_KINDS):
        suffix = "-noise" if kind == "noise" else ""
        models = [f"M*_isd{suffix}", f"CE{suffix}", "SII", None if kind == "noise" else "GFC"]
        shots = [None if model is None else shoot(model, kind, _THREE * len(_KINDS)) for model in models]
        first = next((one for one in shots if one is not None), None)
        content = [_all(first, "original"), _all(first, "masked"), *(_all(one, "blended") for one in shots)]
        for row, pictures in zip(rows, content, strict=True):
            row += [_nth(pictures, _THREE * number + column) for column in range(_THREE)]
    labels = ["(a)", "(b)", "(c) " + NAMES["M*_isd"], "(d) CE", "(e) SII", "(f) GFC"]
    return _layout(rows, left=labels, below=[f"random {kind} mask" for kind in _KINDS])


def _figure6(shoot: Shoot) -> Any:
    from matplotlib.figure import Figure

    shots = {name: shoot(name, "block", 1) for name in FIGURES[6]}
    first = next(one for one in shots.values() if one is not None)
    figure = Figure(figsize=(10.5, 5.0), layout="constrained")
    grid = figure.add_gridspec(2, 3, width_ratios=(1, 2, 2))
    for row, (name, picture) in enumerate((("original", first.original[0]), ("masked", first.masked[0]))):
        _show(figure.add_subplot(grid[row, 0]), picture, f"(a) {name}")
    for column, (letter, (name, one)) in enumerate(zip("bc", shots.items(), strict=True), start=1):
        axes = figure.add_subplot(grid[:, column])
        if one is None:
            _show(axes, None, f"({letter}) {NAMES[name]}")
            continue
        found = one.features(0)
        text = f"mean activation {found.inside:.3g} in the hole, {found.outside:.3g} around it"
        _show(axes, mosaic(found.maps_CHW), f"({letter}) {NAMES[name]}: {len(found.maps_CHW)} maps\n{text}")
    return figure


_FIGURES: dict[int, Callable[[Shoot], Any]] = {1: _figure1, 3: _figure3, 4: _figure4, 5: _figure5, 6: _figure6}


def mosaic(maps_CHW: np.ndarray, gap: int = 2) -> np.ndarray:
    """All maps in one square-like grid, each from its own least value (black) to its own largest (white)."""
    count, height, width = maps_CHW.shape
    low, high = maps_CHW.min(axis=(1, 2), keepdims=True), maps_CHW.max(axis=(1, 2), keepdims=True)
    scaled = (maps_CHW - low) / np.where(high > low, high - low, 1)
    across = int(np.ceil(np.sqrt(count)))
    down = int(np.ceil(count / across))
    sheet = np.ones((down * (height + gap) - gap, across * (width + gap) - gap))
    for number, one in enumerate(scaled):
        top, left = number // across * (height + gap), number % across * (width + gap)
        sheet[top : top + height, left : left + width] = one
    return np.repeat(np.round(sheet * 255).astype(np.uint8)[..., None], 3, axis=2)


def _all(shots: SamplePredictions | None, name: str) -> np.ndarray | None:
    return None if shots is None else getattr(shots, name)


def _nth(pictures: np.ndarray | None, number: int) -> np.ndarray | None:
    """One of the samples; a short test split begins again."""
    return None if pictures is None else pictures[number % len(pictures)]


def _columns(columns: Sequence[np.ndarray | None], titles: Sequence[str]) -> Any:
    count = min(_ROWS, max(len(c) for c in columns if c is not None))
    return _layout([[_nth(column, row) for column in columns] for row in range(count)], top=titles)


def _layout(rows: Grid, top: Sequence[str] = (), left: Sequence[str] = (), below: Sequence[str] = ()) -> Any:
    """Pictures in a grid, with titles above columns, beside rows and below groups of columns."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_CELL * len(rows[0]) + (0.9 if left else 0.1), _CELL * len(rows) + 0.45))
    margins = {"left": 0.9 / figure.get_figwidth() if left else 0.01, "right": 0.99}
    margins |= {
        "top": 1 - (0.42 if top else 0.03) / figure.get_figheight(),
        "bottom": (0.3 if below else 0.03) / figure.get_figheight(),
    }
    axes = figure.subplots(
        len(rows), len(rows[0]), squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.04, **margins}
    )
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            _show(axes[row, column], picture, top[column] if row == 0 and top else "")
        if left:
            axes[row, 0].text(
                -0.08, 0.5, left[row], transform=axes[row, 0].transAxes, ha="right", va="center", fontsize=9
            )
    group = len(rows[0]) // len(below) if below else 0
    for number, text in enumerate(below):
        axes[-1, number * group + group // 2].text(
            0.5, -0.22, text, transform=axes[-1, number * group + group // 2].transAxes, ha="center", fontsize=9
        )
    return figure


def _show(axes: Any, picture: np.ndarray | None, title: str) -> None:
    axes.set_axis_off()
    if picture is not None:
        axes.imshow(picture, interpolation="nearest")
    else:
        axes.set_box_aspect(1)
    if title:
        axes.set_title(title, fontsize=9, pad=3)
