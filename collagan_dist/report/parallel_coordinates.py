"""Parallel coordinates of a sweep: one axis a searched key and one for the metric, one line a trial."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from collagan_dist.report import sweep_charts
from collagan_dist.report.sensitivity import axis_position
from collagan_dist.report.sweep_charts import BEST_TRIAL, FULL, PAPERS, Row
from collagan_dist.report.sweep_data import Key, Metric, SweepData
from collagan_dist.report.trial_data import TrialData
from collagan_dist.report.vega import INK, RAMP, REFERENCE, TICK, VegaChart

# From this many lines on, those of poorer trials are drawn fainter.
_MANY_LINES = 60
# Each height of a trial gets the number of its axis.
_FLAT: list[Row] = [
    {"flatten": ["y"]},
    {"window": [{"op": "row_number", "as": "place"}], "groupby": ["trial"]},
    {"calculate": "datum.place - 1", "as": "axis"},
]
_HIDDEN = {"type": "quantitative", "axis": None}


def parallel_coordinates(sweep: SweepData) -> VegaChart | None:
    """Return a chart of all trials that have the first metric; None without any."""
    metric = sweep.main
    trials = [trial for trial in sweep.searched if metric.name in trial.scores]
    if not trials or not sweep.keys:
        return None
    best = sweep.best_number(metric.name)
    axes = [*(_key_axis(key, trials) for key in sweep.keys), _metric_axis(trials, metric)]
    # Shades are by rank and not by value: one outlier would leave all others a single colour.
    ranked = sorted(trials, key=lambda trial: metric.sign * trial.scores[metric.name])
    level = {trial.number: index * len(RAMP) // len(ranked) for index, trial in enumerate(ranked)}

    def place(trial: TrialData) -> Row:
        return {"y": _heights(sweep, trial, axes), "level": level[trial.number]}

    rows = sweep_charts.trial_rows(sweep, trials, best, place)
    for row in rows:
        row |= _line(row, many=len(rows) > _MANY_LINES)
    # The best and the paper's come last and are drawn over all others, the better of these over the poorer.
    rows.sort(key=lambda row: (row["kind"] == BEST_TRIAL, row["kind"] == PAPERS, row["level"]))
    named = [name for name in (BEST_TRIAL, PAPERS) if any(row["look"] == name for row in rows)]
    x = {**_HIDDEN, "field": "axis", "scale": {"domain": [-0.3, len(axes) - 0.5], "nice": False}}
    y = {**_HIDDEN, "field": "y", "scale": {"domain": [0, 1.12], "nice": False}}
    layers = [_lines(named, best), *_axis_layers(axes), sweep_charts.hover_layer(sweep, x, y, _FLAT)]
    spec = {"data": {"values": rows}, "layer": layers, "encoding": {"x": x, "y": y}}
    name = metric.label
    keys = ", ".join(key.label for key in sweep.keys)
    said = f"Parallel coordinates of {len(trials)} trials over {keys} and {name}{sweep_charts.best_words(best)}."
    # Not "darker": on a dark page better lines are lighter.
    note = f"One line a trial; the stronger, the better its {name}. Thin lines were stopped early or are not finished."
    width = max(600, min(1136, 160 * len(axes)))
    return VegaChart("Parallel coordinates", said, spec, "", (note,), width, height=400)


@dataclass(frozen=True)
class _Axis:
    """One axis of the chart: positions (see sensitivity.Point) from `low` to `high` become heights from 0 to 1."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, float | str], ...]

    def height(self, position: float) -> float:
        # A single choice is drawn in the middle.
        return round((position - self.low) / (self.high - self.low), 4) if self.high != self.low else 0.5


def _key_axis(key: Key, trials: Sequence[TrialData]) -> _Axis:
    if not key.ordered:
        return _Axis(key.label, 0, max(len(key.choices) - 1, 0), tuple(enumerate(key.choices)))
    positions = [at for trial in trials if (at := axis_position(key, trial.values.get(key.name))) is not None]
    low, high = sweep_charts.key_ends(key, positions)
    marks = ((at, sweep_charts.on_axis(key, at)) for at in sweep_charts.round_ticks(low, high, key.log))
    return _Axis(key.label, low, high, tuple(marks))


def _metric_axis(trials: Sequence[TrialData], metric: Metric) -> _Axis:
    values = [trial.scores[metric.name] for trial in trials]
    ends = min(values), max(values)
    # The better end is up, also where smaller is better.
    low, high = ends[:: metric.sign]
    return _Axis(metric.label, low, high, tuple((at, at) for at in sweep_charts.round_ticks(*ends, False)))


def _heights(sweep: SweepData, trial: TrialData, axes: Sequence[_Axis]) -> list[float | None]:
    positions = [axis_position(key, trial.values.get(key.name)) for key in sweep.keys] + [trial.scores[sweep.main.name]]
    # None leaves a gap in the line.
    return [None if at is None else axis.height(at) for at, axis in zip(positions, axes, strict=True)]


def _line(row: Row, many: bool) -> Row:
    """Return the look of a trial's line: its key in the scale of colours, its width and its opacity."""
    if row["kind"] in (BEST_TRIAL, PAPERS):
        return {"look": row["kind"], "width": sweep_charts.LOOKS[row["kind"]]["width"], "opacity": 1}
    # Among many lines the good ones could not be followed if the poorer ones were as strong.
    strength = 0.25 + 0.65 * (row["level"] / (len(RAMP) - 1)) ** 3 if many else 1.0
    full = row["kind"] == FULL
    width = (1.1 if many else 1.5) if full else 0.9
    return {"look": str(row["level"]), "width": width, "opacity": round((0.9 if full else 0.55) * strength, 3)}


def _lines(named: Sequence[str], best: int | None) -> Row:
    """Return the layer of the trials' lines, with a legend of those of the best trial and of the paper's."""
    levels = [str(index) for index in range(len(RAMP))]
    looks = [sweep_charts.LOOKS[name] for name in named]
    legend = {"values": list(named), "labelExpr": f"datum.label === '{BEST_TRIAL}' ? 'trial {best}, the best' : datum.label"}  # fmt: skip

    def by_look(*values: Any) -> Row:
        scale = {"type": "ordinal", "domain": [*levels, *named], "range": [*values]}
        return {"field": "look", "type": "nominal", "scale": scale, "legend": legend}

    encoding = {
        "stroke": by_look(*RAMP, *(look["line"] for look in looks)),
        "strokeDash": by_look(*([1, 0] for _ in levels), *(look["dash"] for look in looks)),
        "strokeWidth": {"field": "width", "type": "quantitative", "scale": None},
        "opacity": {"field": "opacity", "type": "quantitative", "scale": None},
        "detail": {"field": "trial"},
    }
    return {"transform": _FLAT, "mark": sweep_charts.LINE, "encoding": sweep_charts.widened(encoding)}


def _axis_layers(axes: Sequence[_Axis]) -> list[Row]:
    """Return the axes with their ticks and titles."""
    # A long label is broken behind its dots and between its words.
    parts = [textwrap.wrap(axis.label.replace(".", ". "), 13, break_long_words=False) for axis in axes]
    broken = ["\n".join(lines).replace(". ", ".") for lines in parts]
    titles = [{"axis": at, "y": 1, "text": text, "dy": -12 - 12 * text.count("\n")} for at, text in enumerate(broken)]
    marks = [{"axis": at, "y": axis.height(position), "value": value}
             for at, axis in enumerate(axes) for position, value in axis.ticks]  # fmt: skip
    text = {"type": "text", "aria": False}
    upright = [{"axis": at, "y": 0, "end": 1} for at in range(len(axes))]
    written = {"text": {"field": "text"}}
    return [
        {"data": {"values": upright},
         "mark": {"type": "rule", "color": REFERENCE, "aria": False}, "encoding": {"y2": {"field": "end"}}},
        {"data": {"values": marks}, "transform": [{"calculate": f"isString(datum.value) ? datum.value : {TICK}", "as": "text"}],
         "mark": {**text, "align": "left", "dx": 4, "limit": 110}, "encoding": written},
        {"data": {"values": titles}, "mark": {**text, "lineBreak": "\n", "dy": {"expr": "datum.dy"}, "limit": 110, "color": INK},
         "encoding": written},
    ]  # fmt: skip
