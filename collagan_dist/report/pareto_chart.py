"""The Pareto front of a sweep with several metrics, as a chart of one metric over another."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from collagan_dist.report import formatting, sweep_charts
from collagan_dist.report.sweep_charts import FRONT, Row
from collagan_dist.report.sweep_data import Metric, SweepData
from collagan_dist.report.trial_data import TrialData
from collagan_dist.report.vega import INK, VegaChart

# Numbers of trials nearer than these shares of the axes are written on different sides: outwards first, towards better
# values, where few other trials are.
_NEAR = {"x": 0.08, "y": 0.12}
_SIDES = ((1, 1), (-1, -1), (1, -1), (-1, 1))


def front_chart(sweep: SweepData, across: Metric, down: Metric) -> VegaChart | None:
    """Return metric `down` over metric `across`, with the front connected and its trials numbered. None without a value.

    Only full-length runs are shown, where there are any.
    """
    scored = [trial for trial in sweep.searched if {across.name, down.name} <= set(trial.scores)]
    numbers = frozenset(sweep.front)
    trials = [trial for trial in scored if sweep.is_full_length(trial) or trial.number in numbers] or scored
    if not trials:
        return None
    front = [trial for trial in trials if trial.number in numbers]

    def place(trial: TrialData) -> Row:
        # The paper's λ keep their diamond, also on the front.
        kind = {"kind": FRONT} if trial.number in numbers and trial.role != "paper" else {}
        return {"x": trial.scores[across.name], "y": trial.scores[down.name], **kind}

    rows = sweep_charts.trial_rows(sweep, trials, None, place)
    kinds = {row["kind"] for row in rows}
    # The front may be of more metrics than these two: in two of them a line through all of it would turn back.
    line = [{"x": one.scores[across.name], "y": one.scores[down.name]} for one in undominated(front, across, down)]
    written = {"text": {"field": "trial"}, "fill": {"value": INK}}
    layers = [
        {"data": {"values": line}, "mark": {"type": "line", "strokeWidth": 1.4, "color": sweep_charts.BEST, "aria": False}},
        {"mark": sweep_charts.POINT, "encoding": {**sweep_charts.by_kind(sweep_charts.MARKS, kinds, {}), **sweep_charts.tooltip(sweep)}},
        {"data": {"values": _numbers(rows, numbers, (across.sign, down.sign))},
         "mark": {"type": "text", "dx": {"expr": "datum.dx"}, "dy": {"expr": "datum.dy"}, "aria": False}, "encoding": written},
    ]  # fmt: skip
    encoding = {"x": sweep_charts.axis("x", _axis_label(across)), "y": sweep_charts.axis("y", None)}
    names = ", ".join(f"trial {one.number} ({_score(one, across)}; {_score(one, down)})" for one in front)
    pair = f"{down.label} over {across.label}"
    said = f"{pair} of {len(trials)} trials. Pareto-optimal: {names or 'none'}."
    spec = {"data": {"values": rows}, "layer": layers, "encoding": encoding}
    return VegaChart(_axis_label(down), said, spec, "", (), *sweep_charts.HALF)


def undominated(trials: Sequence[TrialData], first: Metric, second: Metric) -> list[TrialData]:
    """Return the trials that no other beats in both metrics."""

    def point(trial: TrialData) -> tuple[float, float]:
        return first.sign * trial.scores[first.name], second.sign * trial.scores[second.name]

    # Equal points do not beat one another.
    def beaten(one: tuple[float, float], other: tuple[float, float]) -> bool:
        return other != one and other[0] >= one[0] and other[1] >= one[1]

    return [trial for trial in trials if not any(beaten(point(trial), point(other)) for other in trials)]


def _numbers(rows: Sequence[Row], front: Collection[int], signs: tuple[int, int]) -> list[Row]:
    """Return the numbers of the front's trials beside their marks, each on the first side that no near one has."""
    spans = {at: max(row[at] for row in rows) - min(row[at] for row in rows) or 1.0 for at in _NEAR}
    placed: list[Row] = []
    for row in filter(lambda row: row["trial"] in front, rows):
        near = [one for one in placed if all(abs(row[at] - one[at]) < share * spans[at] for at, share in _NEAR.items())]
        free = [side for side in range(len(_SIDES)) if all(one["side"] != side for one in near)]
        side = free[0] if free else 0
        # Pixels from the mark; y grows downwards.
        dx, dy = (one * sign for one, sign in zip(_SIDES[side], signs, strict=True))
        placed.append({"trial": row["trial"], "x": row["x"], "y": row["y"], "side": side, "dx": 11 * dx, "dy": -9 * dy})
    return placed


def _score(trial: TrialData, metric: Metric) -> str:
    return formatting.format_metric(metric.name, trial.scores[metric.name], True)


def _axis_label(metric: Metric) -> str:
    unit = f" ({formatting.metric_unit(metric.name)})" if formatting.metric_unit(metric.name) else ""
    return f"{metric.label}{unit}, {'larger' if metric.sign > 0 else 'smaller'} is better"
