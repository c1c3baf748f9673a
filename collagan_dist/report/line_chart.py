"""Curves over steps as Vega-Lite: running means over faint values, references, marks, values under the pointer."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, quantiles
from typing import Any

from collagan_dist.report import formatting
from collagan_dist.report.vega import COLOURS, REFERENCE, SERIES, VegaChart
from collagan_dist.runs.thinning import MAX_NUMBER

Spec = dict[str, Any]

# Dashes tell series apart without colour.
_DASHES = ([1, 0], [7, 3], [2, 2], [8, 2, 2, 2])
# Of more values a running mean is drawn; up to so many are also points.
_NOISY_POINTS, _MAX_DOTS = 40, 25
# A smaller change of a curve, relative to its values, is that of a constant: ticks could not tell it.
_CONSTANT = 1e-4
_LOG_FACTOR = 30
_PADDING = 12  # px above and below the values


@dataclass(frozen=True)
class Series:
    """One curve. `colour` counts through the palette: a task or a run keeps its colour from chart to chart.

    `last` is the newest (step, value), where the last point is a mean.
    """

    label: str
    colour: int
    steps: tuple[float, ...]
    values: tuple[float, ...]
    last: tuple[int, float] | None = None

    @property
    def end(self) -> tuple[float, float]:
        return self.last or (self.steps[-1], self.values[-1])

    @property
    def constant(self) -> bool:
        """Whether it never changes. One value alone may be the first of a curve."""
        spread = max(self.values, default=0) - min(self.values, default=0)
        return len(self.values) > 1 and spread <= _CONSTANT * abs(self.values[0])


@dataclass(frozen=True)
class Chart:
    """Curves over steps with their reference values. `marks` are steps with a vertical line: resumes and rollbacks."""

    title: str
    series: tuple[Series, ...]
    unit: str = ""
    references: tuple[tuple[str, float], ...] = ()
    marks: tuple[int, ...] = ()
    noisy: bool = True
    from_zero: bool = False
    main: bool = True

    @property
    def constant(self) -> bool:
        return all(series.constant for series in self.series)

    @property
    def seen_at_once(self) -> bool:
        """Whether it is a main one that has a line: single points wait until they are asked for."""
        return self.main and any(len(series.values) > 1 for series in self.series)

    def drawn(self) -> VegaChart:
        """Return the chart as a specification. Its rows are x (the step), y and s, the number of the series."""
        styles = _styles(self.series)
        legend = tuple((series.label, *style) for series, style in zip(self.series, styles, strict=True))
        return VegaChart(
            self.title, self.description, _spec(self, styles), self.unit, legend=legend if len(legend) > 1 else ()
        )

    @property
    def description(self) -> str:
        """The chart in words, for screen readers."""
        ends = [f"{one.label} {one.end[1]:.4g} at step {one.end[0]:g}" for one in self.series if one.steps]
        return f"{self.title} over steps. Last values: {'; '.join(ends) or 'none'}."


def constants(charts: Iterable[Chart]) -> str:
    """Return the curves that never change in one line; "" without any."""
    named = []
    for chart in charts:
        for series in chart.series:
            name = chart.title + (f", {series.label}" if series.label != chart.title else "")
            value = f"{formatting.format_number(series.values[0])} {chart.unit}".strip()
            named.append(f"{name} {value}")
    return f"Constant: {'; '.join(named)}." if named else ""


def _styles(series: Sequence[Series]) -> list[tuple[str, list[int]]]:
    """Return the colour and the dashes of each series: no two of one colour have the same dashes."""
    used: Counter[int] = Counter()
    styles = []
    for one in series:
        colour = one.colour % COLOURS
        dash = (colour + used[colour]) % len(_DASHES) if len(series) > 1 else 0
        styles.append((SERIES[colour], _DASHES[dash]))
        used[colour] += 1
    return styles


def _spec(chart: Chart, styles: Sequence[tuple[str, list[int]]]) -> Spec:
    longest = max((len(series.values) for series in chart.series), default=0)
    smooth = chart.noisy and longest > _NOISY_POINTS
    rows = [row for index, series in enumerate(chart.series) for row in _rows(series, index, smooth)]
    x = {"field": "x", "type": "quantitative", "title": None, "axis": {"tickMinStep": 1}, "scale": _x_scale(rows)}
    y = {"field": "y", "type": "quantitative", "title": None, **_y_scale(chart)}
    domain = list(range(len(styles)))
    curve = {"x": x, "y": y} | {
        channel: {"field": "s", "type": "nominal", "legend": None, "scale": {"domain": domain, "range": list(values)}}
        for channel, values in zip(("color", "strokeDash"), zip(*styles, strict=True), strict=False)
    }
    layers = [*_references(chart, y), _marks(chart, x), *_curves(curve, smooth, longest <= _MAX_DOTS)]
    return {"data": {"values": rows}, "layer": [*layers, _hover(chart, x)]}


def _rows(series: Series, index: int, smooth: bool) -> list[Spec]:
    # Five digits are finer than any screen.
    rows: list[Spec] = [
        {"x": round(step, 1), "y": float(f"{value:.5g}"), "s": index}
        for step, value in zip(series.steps, series.values, strict=True)
    ]
    if smooth:
        # The shortest curves of a comparison have nothing to smooth.
        half = max(1, len(rows) // 50) if len(rows) > _NOISY_POINTS else 0
        for at, row in enumerate(rows):
            row["mean"] = float(f"{fmean(series.values[max(0, at - half) : at + half + 1]):.5g}")
    return rows


def _curves(curve: Spec, smooth: bool, dots: bool) -> list[Spec]:
    line = {"type": "line", "clip": True, "strokeWidth": 2, "point": {"filled": True, "size": 28} if dots else False}
    # Dragging moves the steps, the wheel with Shift zooms; without Shift it scrolls the page.
    zoom = {"type": "interval", "encodings": ["x"], "zoom": "wheel![event.shiftKey]"}
    params = [{"name": "zoom", "select": zoom, "bind": "scales"}]
    if not smooth:
        return [{"params": params, "mark": line, "encoding": curve}]
    # Losses jump from step to step: the running mean shows where they go, the faint line how much they jump.
    faint = {key: value for key, value in curve.items() if key != "strokeDash"}
    return [
        {"params": params, "mark": {**line, "strokeWidth": 1, "opacity": 0.28}, "encoding": faint},
        {"mark": line, "encoding": {**curve, "y": {**curve["y"], "field": "mean"}}},
    ]


def _references(chart: Chart, y: Spec) -> list[Spec]:
    """Return dashed lines with their names."""
    data = {"values": [{"name": name, "y": value} for name, value in chart.references]}
    text = {"type": "text", "align": "right", "baseline": "bottom", "x": "width", "dy": -2}
    return [
        {"data": data, "mark": {"type": "rule", "color": REFERENCE, "strokeDash": [4, 3]}, "encoding": {"y": y}},
        {"data": data, "mark": text, "encoding": {"y": y, "text": {"field": "name"}}},
    ] if chart.references else []  # fmt: skip


def _marks(chart: Chart, x: Spec) -> Spec:
    """Return dotted verticals at resumes and rollbacks."""
    rule = {"type": "rule", "clip": True, "color": REFERENCE, "strokeDash": [1, 2]}
    return {"data": {"values": [{"x": step} for step in chart.marks]}, "mark": rule, "encoding": {"x": x}}


def _hover(chart: Chart, x: Spec) -> Spec:
    """Return a vertical at the step nearest to the pointer, which shows the values of all series there."""
    # Below the pointer is the area that is nearest to a vertical, whose datum is the vertical.
    row = "(datum.datum || datum)"
    values = [
        # A run of a comparison may have no value at the step of another's.
        f"{json.dumps(series.label)}: isValid({row}['{index}']) ? format({row}['{index}'], '.4~g') : '–'"
        for index, series in enumerate(chart.series)
    ]
    tooltip = "{" + ", ".join([f"'step': format({row}.x, ',.6~g')", *values]) + "}"
    select = {"type": "point", "encodings": ["x"], "nearest": True, "on": "pointerover", "clear": "pointerout"}
    shown = {"condition": {"param": "hover", "empty": False, "value": 0.7}, "value": 0}
    return {
        "name": "hover",
        "params": [{"name": "hover", "select": select}],
        "transform": [{"pivot": "s", "value": "y", "groupby": ["x"]}],
        "mark": {"type": "rule", "clip": True, "color": REFERENCE, "tooltip": {"expr": tooltip}},
        "encoding": {"x": x, "opacity": shown},
    }


def _x_scale(rows: Sequence[Spec]) -> Spec:
    steps = [row["x"] for row in rows] or [0]
    low, high = min(steps), max(steps)
    # A run that began at 0 is shown from 0; one that continues another's steps is not.
    return {"domain": [0 if low < 0.3 * high else low, high], "nice": False, "padding": 4}


def _y_scale(chart: Chart) -> Spec:
    """Return scale and axis of the values."""
    values = sorted(value for series in chart.series for value in series.values)
    if chart.from_zero:
        return {"scale": {"domainMin": 0, "nice": True}}
    # Room for the name of a reference at the upper end.
    room = {"padding": _PADDING} if chart.references else {}
    least = min([*values[:1], *(value for _, value in chart.references)], default=0)
    low, *_, high = quantiles(values, n=20, method="inclusive") if len(values) > 1 else (0, 0)
    # From 5 to 95 %, so that neither a single spike nor a straight fall to zero makes the axis logarithmic.
    # The smallest floats have no such axis below them.
    if least > 1 / MAX_NUMBER and high > _LOG_FACTOR * low:
        return {
            "scale": {"type": "log", **room},
            "axis": {"values": _log_ticks(least, values[-1]), "tickCount": 20},
        }
    return {"scale": {"zero": False, **room}}


def _log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten, and three times these where there is room for both."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 3) if len(powers) < 6 else (1,)
    return [float(f"{factor}e{power}") for power in powers[:: 1 + len(powers) // 8] for factor in factors]
