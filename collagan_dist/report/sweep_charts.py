"""Charts of a sweep in Vega-Lite: every trial, its course over samples, the metric against each key, the keys' importance."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from collagan_dist.report import formatting
from collagan_dist.report.sensitivity import Point, Sensitivity, axis_position, value_text
from collagan_dist.report.sweep_data import Key, Metric, SweepData
from collagan_dist.report.trial_data import TrialData, format_value
from collagan_dist.report.vega import INK, INK_SOFT, PAPER, REFERENCE, SERIES, VegaChart

Row = dict[str, Any]
TRIAL, BEST = SERIES[0], SERIES[1]
BEST_TRIAL, PAPERS, FULL, STOPPED, UNFINISHED, FAILED, BREAKING = (
    "best", "the paper's λ", "full-length run", "stopped early", "not finished", "failed", "breaks a constraint",
)  # fmt: skip
FRONT, BEST_SO_FAR, REFERENCES, RUNGS = "Pareto-optimal", "best so far", "reference", "rungs"
# Trials that are worse than an axis shows, by the sign of their metric.
OUTSIDE = {1: "worse: below the axis", -1: "worse: above the axis"}
_STAR = "M0,-1L.24,-.32L.95,-.31L.38,.12L.59,.81L0,.4L-.59,.81L-.38,.12L-.95,-.31L-.24,-.32Z"
_DASHES = "M-1.4,0L-.7,0M-.35,0L.35,0M.7,0L1.4,0"
_CROSS = "M-.7,-.7L.7,.7M-.7,.7L.7,-.7"


# The same meaning has the same look in every chart, as a mark and as a line; the last are drawn on top.
_PARTS = ("shape", "fill", "edge", "size", "line", "width", "dash", "opacity")
LOOKS: dict[str, dict[str, Any]] = {
    kind: dict(zip(_PARTS, look, strict=True))
    for kind, look in {
        RUNGS: ("stroke", REFERENCE, REFERENCE, 150, REFERENCE, 1, (1, 2), 1),
        REFERENCES: (_DASHES, REFERENCE, REFERENCE, 150, REFERENCE, 1, (4, 3), 1),
        BEST_SO_FAR: ("stroke", BEST, BEST, 150, BEST, 1.6, (1, 0), 1),
        OUTSIDE[1]: ("triangle-down", PAPER, INK_SOFT, 30, TRIAL, 1, (1, 0), 0.45),
        OUTSIDE[-1]: ("triangle-up", PAPER, INK_SOFT, 30, TRIAL, 1, (1, 0), 0.45),
        STOPPED: ("circle", PAPER, INK_SOFT, 26, TRIAL, 1, (1, 0), 0.45),
        UNFINISHED: ("triangle-right", PAPER, INK_SOFT, 30, TRIAL, 1, (1, 0), 0.45),
        FAILED: (_CROSS, INK_SOFT, INK_SOFT, 30, TRIAL, 1, (1, 0), 0.45),
        BREAKING: ("square", PAPER, TRIAL, 30, TRIAL, 1, (2, 2), 0.6),
        FULL: ("circle", TRIAL, TRIAL, 30, TRIAL, 1.2, (1, 0), 0.8),
        FRONT: ("circle", BEST, PAPER, 75, BEST, 1.6, (1, 0), 1),
        PAPERS: ("diamond", INK, PAPER, 70, INK, 2, (5, 3), 1),
        BEST_TRIAL: (_STAR, BEST, PAPER, 150, BEST, 2.8, (1, 0), 1),
    }.items()
}
# Which part of a look a channel of Vega-Lite shows, for marks and for lines.
MARKS = {"shape": "shape", "fill": "fill", "stroke": "edge", "size": "size"}
LINES = {"stroke": "line", "strokeWidth": "width", "strokeDash": "dash", "opacity": "opacity"}
HALF, _THIRD = (540, 270), (360, 210)  # px
# From this many full-length runs on, an axis shows their range; worse trials are drawn at its edge.
_MIN_FOR_RANGE = 3
# More lines than these are drawn fainter, or they would fill the chart.
_MANY_LINES = 40
POINT = {"type": "point", "filled": True, "strokeWidth": 0.9, "opacity": 0.9, "aria": False}
LINE = {"type": "line", "aria": False, "strokeJoin": "round"}


def history_chart(sweep: SweepData, metric: Metric) -> VegaChart | None:
    """Return the value of every trial by its number, the best full-length run so far and the paper's value."""
    trials = [trial for trial in sweep.searched if metric.name in trial.scores]
    if not trials:
        return None
    full = [trial for trial in trials if sweep.is_full_length(trial)]
    best, paper = sweep.best_number(metric.name), sweep.paper_trial
    limits = metric_limits(metric, _scores(trials, metric), [*_scores(full, metric), *_scores([paper], metric)])
    # A trial that failed after a rung has a value, another one a cross at the edge of the worse values.
    shown = [*trials, *(one for one in sweep.searched if one.status == "failed" and metric.name not in one.scores)]
    rows = trial_rows(sweep, shown, best, lambda one: {"x": one.number, **_height(one.scores.get(metric.name), limits)})
    kept = [trial for trial in full or trials if not sweep.broken(trial)]
    layers = [_best_so_far(kept, metric, last=max(trial.number for trial in sweep.searched))] if kept else []
    labels = {BEST_TRIAL: f"trial {best}, the best", **({BEST_SO_FAR: "best so far"} if kept else {})}
    if paper is not None and metric.name in paper.scores:
        length = "" if sweep.is_full_length(paper) else f" after {formatting.format_number(paper.samples or 0)} samples"
        labels[REFERENCES] = f"{PAPERS}{length}: {formatting.format_metric(metric.name, paper.scores[metric.name])}"
        layers.append({"data": {"values": [{"y": paper.scores[metric.name]}]}, "mark": rule(REFERENCES),
                       "encoding": {"stroke": {"datum": REFERENCES}}})  # fmt: skip
    kinds = {row["kind"] for row in rows} | (labels.keys() - {BEST_TRIAL})
    x = axis("x", "trial", tickMinStep=1)
    layers.append({"mark": POINT, "encoding": {"x": x, **by_kind(MARKS, kinds, labels), **tooltip(sweep)}})
    said = f"{metric.label} of every trial by number: {len(trials)} trials{best_words(best)}."
    spec = {"data": {"values": rows}, "layer": layers, "encoding": {"y": axis("y", None, domain=limits)}}
    return VegaChart(f"{metric.label} of every trial", said, spec, formatting.metric_unit(metric.name), (), *HALF)


def course_chart(sweep: SweepData, metric: Metric) -> VegaChart | None:
    """Return every trial's evaluations over samples, with the rungs as dotted verticals."""
    curves = {trial.number: (trial.curves or {}).get(metric.name, ()) for trial in sweep.searched}
    trials = [trial for trial in sweep.searched if curves[trial.number]]
    best = sweep.best_number(metric.name)

    def place(trial: TrialData) -> Row:
        x, y = zip(*curves[trial.number], strict=True)
        return {"x": x, "y": [_rounded(value) for value in y]}

    rows = trial_rows(sweep, trials, best, place)
    # Of a copied sweep few folders may be there, and none of a shown trial.
    if not rows:
        return None
    kinds = {row["kind"] for row in rows} | ({RUNGS} if sweep.rungs else set())
    # PBT compares at generations, the others at rungs.
    labels = {BEST_TRIAL: f"trial {best}, the best", RUNGS: "generations" if sweep.scheduler == "pbt" else "rungs"}
    last = max(*sweep.rungs[-1:], *(curves[trial.number][-1][0] for trial in trials), 1)
    looks = by_kind(LINES, kinds, labels, fainter=min(1.0, (_MANY_LINES / len(rows)) ** 0.5))
    # To the last rung, so that one sees how far a sweep is from its end.
    x = axis("x", "samples", domain=(0, 1.02 * last))
    line = {"x": x, "y": axis("y", None), "detail": {"field": "trial"}, **looks}
    dot = {**line, "fill": {**looks["stroke"], "legend": None}, "opacity": {"value": 0.8}}
    layers = [
        {"data": {"values": [{"x": rung} for rung in sweep.rungs]}, "mark": rule(RUNGS),
         "encoding": {"x": x, "stroke": {"datum": RUNGS}}},
        {"transform": [{"flatten": ["x", "y"]}], "mark": LINE, "encoding": widened(line)},
        # A line of one point has no length: it needs a dot to be seen.
        {"transform": [{"filter": "datum.x.length === 1"}, {"flatten": ["x", "y"]}],
         "mark": {"type": "point", "size": 12, "aria": False}, "encoding": {**dot, **tooltip(sweep)}},
        hover_layer(sweep, x, axis("y", None), [{"flatten": ["x", "y"]}]),
    ]  # fmt: skip
    said = f"{metric.label} of {len(trials)} trials over samples{best_words(best)}."
    spec = {"data": {"values": rows}, "layer": layers}
    return VegaChart(f"{metric.label} during training", said, spec, formatting.metric_unit(metric.name), (), *HALF)


def sensitivity_chart(sweep: SweepData, found: Sensitivity) -> VegaChart:
    """Return the metric against one key: trials, the means of bins with one standard error, and the paper's value."""
    key, metric, best = found.key, found.metric, sweep.best_number(found.metric.name)
    points = {point.trial: point for point in found.points}
    # The axis shows whatever the means are of, and the paper's trial as what it is.
    used = [point.value for point in found.points if found.all_trials or point.full_length]
    limits = metric_limits(metric, [one.value for one in found.points], [*used, *_scores([sweep.paper_trial], metric)])
    trials = [trial for trial in sweep.searched if trial.number in points]
    rows = trial_rows(sweep, trials, best, lambda one: _place(key, points[one.number], limits))
    bins = [{"x": on_axis(key, bin.centre), "y": bin.mean, "low": bin.mean - (bin.error or 0), "high": bin.mean + (bin.error or 0)}
            for bin in found.bins]  # fmt: skip
    layers: list[Row] = [
        {"mark": POINT, "encoding": {**by_kind(MARKS, LOOKS, None), **tooltip(sweep)}},
        {"data": {"values": bins}, "mark": {"type": "rule", "color": INK, "aria": False},
         "encoding": {"y": axis("low", None, domain=limits), "y2": {"field": "high"}}},
        # Choices have no order, so no line joins their means.
        {"data": {"values": bins}, "mark": {"type": "line", "color": INK, "strokeWidth": 1.6 if key.ordered else 0, "aria": False,
                                            "point": {"shape": "square", "size": 28, "fill": INK, "aria": False}}},
    ]  # fmt: skip
    paper = axis_position(key, key.paper)
    if paper is not None:
        span = {"y": {"value": 0}, "y2": {"value": "height"}}
        layers.insert(0, {"data": {"values": [{"x": on_axis(key, paper)}]}, "mark": rule(REFERENCES), "encoding": span})
    positions = [one.position for one in found.points] + ([] if paper is None else [paper])
    encoding = {"x": _key_axis(key, positions), "y": axis("y", None, domain=limits)}
    means = [f"{value_text(key, one.centre)}: {formatting.format_metric(metric.name, one.mean)}" for one in found.bins]
    said = f"{metric.label} of {len(points)} trials against {key.label}. Means of bins: {'; '.join(means) or 'none'}."
    spec = {"data": {"values": rows}, "layer": layers, "encoding": encoding}
    return VegaChart(key.label, said, spec, "logarithmic" if key.log else "", (found.short,), *_THIRD)


def importance_charts(sweep: SweepData) -> list[VegaChart]:
    """Return a bar a key for each metric that has shares."""
    metrics = [metric for metric in sweep.metrics if sweep.importance.get(metric.name)]
    # All charts have the order of the first, so that metrics can be compared line by line.
    keys = sorted(sweep.keys, key=lambda key: -sweep.importance[metrics[0].name].get(key.name, 0.0) if metrics else 0)
    return [_importance_chart(metric, keys, sweep.importance[metric.name]) for metric in metrics]


def _importance_chart(metric: Metric, keys: Sequence[Key], shares: Mapping[str, float]) -> VegaChart:
    rows = [{"key": key.label, "share": shares[key.name]} for key in keys if key.name in shares]
    x = axis("share", None, domain=(0, 1.08 * max(shares.values()) or 1))
    y = {"field": "key", "sort": None, "title": None, "axis": {"labelExpr": "datum.label", "grid": False}}
    text = {"text": {"field": "share", "type": "quantitative", "format": ".2f"}}
    layers = [{"mark": {"type": "bar", "color": TRIAL, "height": {"band": 0.6}, "aria": False}},
              {"mark": {"type": "text", "align": "left", "dx": 5, "aria": False}, "encoding": text}]  # fmt: skip
    spec = {"data": {"values": rows}, "layer": layers, "encoding": {"x": {**x, "axis": None}, "y": y}}
    said = "; ".join(f"{row['key']} {row['share']:.2f}" for row in rows)
    name = metric.label
    return VegaChart(name, f"Importance for {name}: {said}.", spec, width=HALF[0], height=24 * len(rows) + 10)


def rule(kind: str) -> Row:
    return {"type": "rule", "color": LOOKS[kind]["line"], "strokeDash": LOOKS[kind]["dash"], "aria": False}


def best_words(best: int | None) -> str:
    """Return the end of a chart's description."""
    return "" if best is None else f"; the best is trial {best}"


def axis(field: str, title: str | None, domain: tuple[float, float] | None = None, **more: Any) -> Row:
    """Return the encoding of a quantitative axis, from `domain` or from the values."""
    scale: Row = {"zero": False} if domain is None else {"domain": domain, "nice": False, "zero": False}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": more}


def kind_of(sweep: SweepData, trial: TrialData, best: int | None) -> str:
    """Return what a trial is shown as, a key of LOOKS."""
    if trial.number == best:
        return BEST_TRIAL
    if trial.role == "paper":
        return PAPERS
    if sweep.broken(trial):
        return BREAKING
    if sweep.is_full_length(trial):
        return FULL
    return {"running": UNFINISHED, "paused": UNFINISHED, "failed": FAILED}.get(trial.status, STOPPED)


def trial_rows(
    sweep: SweepData, trials: Iterable[TrialData], best: int | None, place: Callable[[TrialData], Row]
) -> list[Row]:
    """Return the data of a chart: what `tooltip` shows of each shown trial, its kind, and where `place` puts it."""
    rows = []
    for trial in filter(sweep.is_shown, trials):
        samples = formatting.format_number(trial.samples or 0)
        row: Row = {"trial": trial.number, "status": trial.status, "samples": samples}
        row |= {f"m{index}": formatting.format_metric(metric.name, trial.scores.get(metric.name), metric.name in trial.scores)
                for index, metric in enumerate(sweep.metrics)}  # fmt: skip
        row |= {f"k{index}": format_value(trial.values.get(key.name)) for index, key in enumerate(sweep.keys)}
        rows.append({**row, "kind": kind_of(sweep, trial, best), **place(trial)})
    order = list(LOOKS)
    return sorted(rows, key=lambda row: order.index(row["kind"]))


def tooltip(sweep: SweepData) -> Row:
    """Return the encoding that shows a trial under the pointer: number, status, length, metrics and values."""
    titles = {"trial": "trial", "status": "status", "samples": "samples"}
    titles |= {f"m{index}": metric.label for index, metric in enumerate(sweep.metrics)}
    titles |= {f"k{index}": key.label for index, key in enumerate(sweep.keys)}
    return {"tooltip": [{"field": field, "type": "nominal", "title": title} for field, title in titles.items()]}


def by_kind(
    channels: Mapping[str, str], kinds: Collection[str], labels: Mapping[str, str] | None, fainter: float = 1.0
) -> Row:
    """Return the encoding of the field "kind" with a legend, whose `labels` replace names of kinds; None is no legend."""
    legend = None
    if labels is not None:
        # A legend that is wider than its chart would make the chart smaller.
        legend = {"columns": {"expr": "max(1, floor(width / 150))"}, "symbolStrokeWidth": 1.6,
                  "labelExpr": f"({json.dumps(labels)})[datum.label] || datum.label", "symbolOpacity": 1}  # fmt: skip
    encoding: Row = {}
    kinds = [kind for kind in reversed(LOOKS) if kind in kinds]  # what matters most comes first in the legend
    for channel, part in channels.items():
        values = [LOOKS[kind][part] for kind in kinds]
        if channel == "opacity":
            values = [value * fainter if value < 1 else 1 for value in values]
        # Said explicitly: Vega-Lite would take a range of sizes for that of a continuous scale.
        scale = {"type": "ordinal", "domain": list(kinds), "range": values}
        encoding[channel] = {"field": "kind", "type": "nominal", "scale": scale, "legend": legend}
    return encoding


def widened(encoding: Row) -> Row:
    """Return the encoding of lines that are thicker and opaque under the pointer."""
    hovered, wide = {"param": "hover", "empty": False}, {"strokeWidth": 4, "opacity": 1}
    return encoding | {
        name: {"condition": {**hovered, "value": value}, **encoding[name]} for name, value in wide.items()
    }


def hover_layer(sweep: SweepData, x: Row, y: Row, transform: Sequence[Row]) -> Row:
    """Return the layer that finds the line under the pointer: its segments, wide and invisible, as a tooltip of Vega's lines
    is only at their points. `transform` gives rows with "y" and the field of `x`."""
    field = x["field"]
    ends = {"window": [{"op": "lead", "field": name, "as": f"{name}2"} for name in (field, "y")], "groupby": ["trial"]}
    select = {"type": "point", "fields": ["trial"], "on": "pointerover", "clear": "pointerout"}
    return {
        "transform": [
            *transform,
            ends,
            {"filter": f"isValid(datum.{field}2) && isValid(datum.y) && isValid(datum.y2)"},
        ],
        "params": [{"name": "hover", "select": select}],
        "mark": {"type": "rule", "strokeWidth": 8, "opacity": 0, "aria": False},
        "encoding": {"x": x, "x2": {"field": f"{field}2"}, "y": y, "y2": {"field": "y2"}, **tooltip(sweep)},
    }


def metric_limits(metric: Metric, values: Sequence[float], always_shown: Sequence[float]) -> tuple[float, float]:
    """Return the shown part of a metric's axis: all `values`, or those `always_shown` and half as much again that is worse."""
    signed, shown = [metric.sign * value for value in values], [metric.sign * value for value in always_shown]
    worst, best = min(signed), max(signed)
    # Trials stopped at the first rung are so far below that differences between the good ones could not be seen.
    if len(shown) >= _MIN_FOR_RANGE:
        worst = max(worst, min(shown) - 0.5 * (max(shown) - min(shown)))
    margin = 0.06 * (best - worst) or abs(best) * 0.1 or 1.0
    ends = metric.sign * (worst - margin), metric.sign * (best + margin)
    return min(ends), max(ends)


def key_ends(key: Key, positions: Sequence[float]) -> tuple[float, float]:
    """Return the lowest and the highest of these positions on a key's axis and of the ends of its space."""
    known = [at for end in (key.low, key.high) if (at := axis_position(key, end)) is not None]
    return min([*positions, *known], default=0.0), max([*positions, *known], default=1.0)


def on_axis(key: Key, position: float) -> float:
    """Return where a position of sensitivity.Point is in Vega's units, in which an axis is logarithmic itself."""
    return float(f"{10**position:.6g}") if key.log else position


def round_ticks(low: float, high: float, log: bool) -> list[float]:
    """Return a handful of round values from `low` to `high`, which are log10 of the values where `log`."""
    if low == high:
        return [low]
    if not log:
        size = 10 ** math.floor(math.log10((high - low) / 3))
        step = next(step for step in (size, 2 * size, 5 * size, 10 * size) if (high - low) / step <= 5)
        return [step * at for at in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    decades = range(math.floor(low), math.ceil(high) + 1)
    found: list[float] = []
    # Less than a decade has a single power of ten or none.
    for leading_digits in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 4, 5, 6, 7, 8, 9)):
        positions = (decade + math.log10(digit) for decade in decades for digit in leading_digits)
        found = [at for at in positions if low - 1e-9 <= at <= high + 1e-9]
        if len(found) >= 3:
            break
    # Between two digits, values are as good as linear.
    if len(found) < 2:
        found = [math.log10(value) for value in round_ticks(10**low, 10**high, log=False)]
    # More than six labels would touch.
    return found[:: math.ceil(len(found) / 6) or 1]


def _scores(trials: Iterable[TrialData | None], metric: Metric) -> list[float]:
    return [trial.scores[metric.name] for trial in trials if trial is not None and metric.name in trial.scores]


def _rounded(value: float) -> float:
    # Six digits are finer than a pixel, and make the page a third smaller.
    return float(f"{value:.6g}")


def _height(value: float | None, limits: tuple[float, float]) -> Row:
    low, high = limits
    # Half a marker would be cut off at the very edge.
    room = 0.025 * (high - low)
    if value is None:
        return {"y": low + room}
    if low <= value <= high:
        return {"y": _rounded(value)}
    return {"y": low + room, "kind": OUTSIDE[1]} if value < low else {"y": high - room, "kind": OUTSIDE[-1]}


def _best_so_far(trials: Sequence[TrialData], metric: Metric, last: int) -> Row:
    steps: list[Row] = []
    for trial in trials:
        value = trial.scores[metric.name]
        if not steps or metric.sign * (value - steps[-1]["y"]) > 0:
            steps.append({"x": trial.number, "y": value})
    # The last step is drawn on to the newest trial.
    values = [*steps, {**steps[-1], "x": last}]
    mark = {**LINE, "interpolate": "step-after", "strokeWidth": LOOKS[BEST_SO_FAR]["width"]}
    return {"data": {"values": values}, "mark": mark, "encoding": {"x": axis("x", "trial"), "stroke": {"datum": BEST_SO_FAR}}}  # fmt: skip


def _place(key: Key, point: Point, limits: tuple[float, float]) -> Row:
    # Points of one choice would cover each other: they are spread sideways by the golden ratio of their trial's number.
    spread = 0.0 if key.ordered else 0.3 * ((point.trial * 0.618) % 1 - 0.5)
    return {"x": on_axis(key, point.position) + spread, **_height(point.value, limits)}


def _key_axis(key: Key, positions: Sequence[float]) -> Row:
    if not key.ordered:
        names = json.dumps(key.choices)
        ticks = {"values": list(range(len(key.choices))), "labelExpr": f"{names}[datum.value]", "labelLimit": 120}
        return axis("x", None, domain=(-0.5, len(key.choices) - 0.5), **ticks)
    low, high = key_ends(key, positions)
    margin = 0.04 * (high - low) or 0.5
    domain = on_axis(key, low - margin), on_axis(key, high + margin)
    found = axis("x", None, domain, values=[on_axis(key, at) for at in round_ticks(low, high, key.log)])
    return {**found, "scale": {**found["scale"], "type": "log" if key.log else "linear"}}
