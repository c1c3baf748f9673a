"""The Pareto front of a sweep with several metrics, as a chart of one metric over another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from collagan_dist.report import chart_svg, formatting
from collagan_dist.report import sweep_chart_style as chart_style
from collagan_dist.report.sweep_charts import HALF_WIDTH, new_axes, set_ticks
from collagan_dist.report.sweep_data import Metric, SweepData
from collagan_dist.report.trial_data import TrialData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_front(sweep: SweepData, across: Metric, down: Metric, uid: str) -> chart_style.SweepChart | None:
    """Draw metric `down` over metric `across`, with the front connected and its trials numbered. None without a value.

    Only full-length runs are drawn, where there are any.
    """
    scored = [trial for trial in sweep.searched if {across.name, down.name} <= set(trial.scores)]
    numbers = frozenset(sweep.front)
    trials = [trial for trial in scored if sweep.is_full_length(trial) or trial.number in numbers] or scored
    if not trials:
        return None
    drawn = [trial for trial in trials if sweep.is_shown(trial)]
    front = [trial for trial in drawn if trial.number in numbers]

    on_front = {"markerfacecolor": chart_style.BEST, "markersize": 6.5, "markeredgecolor": chart_svg.PAPER, "zorder": 4}

    def draw(figure: Figure) -> None:
        axes = new_axes(figure, HALF_WIDTH)
        # The front may be of more metrics than these two: in two of them a line through all of it would turn back.
        line = sorted(undominated(front, across, down), key=lambda trial: trial.scores[across.name])
        axes.plot([one.scores[across.name] for one in line], [one.scores[down.name] for one in line],
                  color=chart_style.BEST, linewidth=1.4, zorder=2)  # fmt: skip
        # The paper's λ keep their diamond, also on the front.
        for trial in drawn:
            style = chart_style.marker_style(sweep, trial, None)
            if trial.number in numbers and trial.role != "paper":
                style |= on_front
            axes.plot([trial.scores[across.name]], [trial.scores[down.name]], linestyle="none", gid=f"t{trial.number}",
                      **style)  # fmt: skip
        set_ticks(axes)
        axes.margins(0.07)
        _write_numbers(figure, axes, front, across, down)
        axes.set_xlabel(_axis_label(across), color=chart_svg.INK_SOFT, fontsize=8.5, labelpad=3)

    others = [trial for trial in drawn if trial.number not in numbers or trial.role == "paper"]
    score = chart_style.format_score
    names = ", ".join(f"trial {one.number} ({score(one, across)}; {score(one, down)})" for one in front)
    titles = {one.number: f"{chart_style.trial_title(one, across)} · {score(one, down)}" for one in drawn}
    return chart_style.SweepChart(
        _axis_label(down),
        chart_style.add_titles(chart_svg.render(HALF_WIDTH, uid, draw), uid, titles),
        f"{formatting.metric_label(down.name)} over {formatting.metric_label(across.name)} of {len(trials)} trials. "
        f"Pareto-optimal: {names or 'none'}.",
        (("front", "Pareto-optimal"), *chart_style.marker_legend(sweep, others, None)),
    )


def undominated(trials: Sequence[TrialData], first: Metric, second: Metric) -> list[TrialData]:
    """Return the trials that no other beats in both metrics."""

    def point(trial: TrialData) -> tuple[float, float]:
        return first.sign * trial.scores[first.name], second.sign * trial.scores[second.name]

    # Equal points do not beat one another.
    def beaten(one: tuple[float, float], other: tuple[float, float]) -> bool:
        return other != one and other[0] >= one[0] and other[1] >= one[1]

    return [trial for trial in trials if not any(beaten(point(trial), point(other)) for other in trials)]


def _write_numbers(figure: Figure, axes: Axes, front: Sequence[TrialData], across: Metric, down: Metric) -> None:
    """Write each trial's number beside its mark, on the first side that is free."""
    # Outwards first, towards better values: few other trials are there.
    out, up = across.sign, down.sign
    sides = ((out, up), (out, 0), (0, up), (out, -up), (-out, up), (0, -up), (-out, 0), (-out, -up))
    taken: list[tuple[float, float, float]] = []
    # Without it the transformation below is that of empty axes.
    axes.autoscale_view()
    points_per_pixel = 72 / figure.dpi
    marks = {trial.number: (trial.scores[across.name], trial.scores[down.name]) for trial in front}
    points = {number: axes.transData.transform(mark) * points_per_pixel for number, mark in marks.items()}
    for trial in sorted(front, key=lambda one: -across.sign * one.scores[across.name]):
        text, (x, y) = str(trial.number), points[trial.number]
        half_width = 2.8 * len(text)
        candidates = [(x + side * (half_width + 5), y + rise * 8, half_width) for side, rise in sides]
        free = [one for one in candidates if not any(_overlap(one, other) for other in taken)]
        middle, height, _ = chosen = (free or candidates)[0]
        taken.append(chosen)
        axes.annotate(text, marks[trial.number], xytext=(middle - x, height - y), textcoords="offset points", ha="center",
                      va="center", fontsize=8.5, color=chart_svg.INK, zorder=6)  # fmt: skip


def _overlap(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    """Return whether two numbers (middle, height, half of the width; in points of 1/72 inch) overlap."""
    return abs(one[0] - other[0]) < one[2] + other[2] and abs(one[1] - other[1]) < 9


def _axis_label(metric: Metric) -> str:
    unit = f" ({formatting.metric_unit(metric.name)})" if formatting.metric_unit(metric.name) else ""
    return f"{formatting.metric_label(metric.name)}{unit}, {'larger' if metric.sign > 0 else 'smaller'} is better"
