"""Charts of a sweep as inline SVG: the metric of every trial, its course over samples, and the metric against each key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from collagan_dist.report import chart_svg, formatting
from collagan_dist.report import sweep_chart_style as chart_style
from collagan_dist.report.sensitivity import Point, Sensitivity, axis_position, value_text
from collagan_dist.report.sweep_data import Key, Metric, SweepData
from collagan_dist.report.trial_data import TrialData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches, at the aspect and text size of half or a third of the page's width.
HALF_WIDTH, _THIRD_WIDTH = (5.3, 3.0), (4.3, 2.6)


def draw_history(sweep: SweepData, metric: Metric, uid: str) -> chart_style.SweepChart | None:
    """Draw the value of every trial by its number, the best full-length run so far and the paper's value."""
    trials = [trial for trial in sweep.searched if metric.name in trial.scores]
    if not trials:
        return None
    paper = sweep.paper_trial.scores.get(metric.name) if sweep.paper_trial else None
    full_length = [trial for trial in trials if sweep.is_full_length(trial)]
    best = chart_style.best_number(sweep, metric, trials)
    always = [trial for trial in trials if trial.role == "paper" or sweep.is_full_length(trial)]
    always_shown = [trial.scores[metric.name] for trial in always]
    shown = chart_style.MetricRange.of(metric, [trial.scores[metric.name] for trial in trials], always_shown)
    # A trial may fail after a rung: then it has a value and its own marker.
    failed = [trial.number for trial in sweep.searched if trial.status == "failed" and metric.name not in trial.scores]
    drawn = [trial for trial in trials if sweep.is_shown(trial)]

    def draw(figure: Figure) -> None:
        axes = new_axes(figure, HALF_WIDTH)
        _draw_best_so_far(axes, full_length or trials, metric, last=max(trial.number for trial in sweep.searched))
        for trial in drawn:
            style = chart_style.marker_style(sweep, trial, best)
            value = trial.scores[metric.name]
            style |= {} if shown.contains(value) else {"marker": shown.outside_marker}
            axes.plot([trial.number], [shown.clamp(value)], linestyle="none", gid=f"t{trial.number}", **style)
        _draw_failed(axes, [number for number in failed if sweep.shown is None or number in sweep.shown])
        if paper is not None:
            axes.axhline(paper, color=chart_svg.REFERENCE, linewidth=1.1, dashes=(4, 3), zorder=1)
        set_ticks(axes, integers=True)
        axes.set_ylim(*shown.limits)
        axes.set_xlabel("trial", color=chart_svg.INK_SOFT, fontsize=8.5, labelpad=3)

    inside = [trial for trial in trials if shown.contains(trial.scores[metric.name])]
    legend = [("line", "best so far"), *chart_style.marker_legend(sweep, inside, best)]
    if outside := len(trials) - len(inside):
        legend.append(("below" if metric.sign > 0 else "above", f"worse than the axis shows: {outside}"))
    legend += [] if paper is None else [("reference", f"the paper's λ: {formatting.format_metric(metric.name, paper)}")]
    legend += [("failed", "failed")] if failed else []
    label = formatting.metric_label(metric.name)
    best_text = formatting.format_metric(metric.name, _value_of(sweep, best, metric), True)
    return chart_style.SweepChart(
        f"{label} of every trial",
        _render_trials(sweep, metric, uid, draw),
        f"{label} of every trial by number: {len(trials)} trials; the best is trial {best} with {best_text}.",
        tuple(legend),
        formatting.metric_unit(metric.name),
    )


def _value_of(sweep: SweepData, number: int | None, metric: Metric) -> float | None:
    return next((trial.scores.get(metric.name) for trial in sweep.trials if trial.number == number), None)


def draw_curves(sweep: SweepData, metric: Metric, uid: str) -> chart_style.SweepChart | None:
    """Draw every trial's evaluations against samples, with the rungs as dotted verticals."""
    curves = [(trial, (trial.curves or {}).get(metric.name, ())) for trial in sweep.searched]
    curves = [(trial, curve) for trial, curve in curves if curve]
    if not curves:
        return None
    best = chart_style.best_number(sweep, metric, [trial for trial, _ in curves])

    def draw(figure: Figure) -> None:
        axes = new_axes(figure, HALF_WIDTH)
        for rung in sweep.rungs:
            axes.axvline(rung, color=chart_svg.REFERENCE, linewidth=0.9, dashes=(1, 2), zorder=1)
        drawn = [one for one in curves if sweep.is_shown(one[0])]
        for trial, curve in sorted(drawn, key=lambda one: chart_style.drawing_order(one[0], best)):
            style = chart_style.line_style(sweep, trial, best, len(curve) == 1, len(drawn))
            axes.plot(*zip(*curve, strict=True), gid=f"t{trial.number}", **style)
        set_ticks(axes)
        # To the last rung, so that one sees how far a sweep is from its end.
        axes.set_xlim(0, max(*sweep.rungs[-1:], *(curve[-1][0] for _, curve in curves), 1) * 1.02)
        axes.set_xlabel("samples", color=chart_svg.INK_SOFT, fontsize=8.5, labelpad=3)

    legend = [("trial-line", "a trial"), ("best-line", f"trial {best}, the best")]
    if any(trial.role == "paper" and trial.number != best for trial, _ in curves):
        legend.append(("paper-line", "the paper's λ"))
    if sweep.rungs:
        # PBT compares at generations, the others at rungs.
        legend.append(("rung", "rungs" if sweep.scheduler != "pbt" else "generations"))
    return chart_style.SweepChart(
        f"{formatting.metric_label(metric.name)} during training",
        _render_trials(sweep, metric, uid, draw),
        f"{formatting.metric_label(metric.name)} of {len(curves)} trials against samples; the best is trial {best}.",
        tuple(legend),
        formatting.metric_unit(metric.name),
    )


def draw_sensitivity(sweep: SweepData, found: Sensitivity, uid: str) -> chart_style.SweepChart:
    """Draw the metric against one key: trials, the means of bins and the paper's value."""
    key, metric = found.key, found.metric
    best = chart_style.best_number(sweep, metric, [trial for trial in sweep.searched if metric.name in trial.scores])
    paper = axis_position(key, key.paper)
    shown = chart_style.MetricRange.of(
        metric, [point.value for point in found.points], [point.value for point in found.points if point.full_length]
    )
    # Full-length runs are drawn over the others: these are what the means are of.
    drawn = [point for point in found.points if sweep.shown is None or point.trial in sweep.shown]
    partial = [point for point in drawn if not point.full_length and shown.contains(point.value)]
    at_edge = [replace(point, value=shown.clamp(point.value)) for point in drawn if not shown.contains(point.value)]
    full_length = [point for point in drawn if point.full_length]
    hollow = {"s": 13, "facecolors": "none", "edgecolors": chart_svg.INK_SOFT, "alpha": 0.55, "linewidths": 0.8}

    def draw(figure: Figure) -> None:
        axes = new_axes(figure, _THIRD_WIDTH, x_label=False)
        _scatter(axes, key, partial, {"marker": "o", **hollow})
        _scatter(axes, key, at_edge, {"marker": shown.outside_marker, **hollow})
        _scatter(axes, key, full_length, {"marker": "o", "s": 17, "facecolors": chart_style.TRIAL, "edgecolors": "none", "alpha": 0.75})  # fmt: skip
        _draw_bins(axes, found)
        _scatter(axes, key, [point for point in found.points if point.trial == best],
                 {"marker": "*", "s": 95, "facecolors": chart_style.BEST, "edgecolors": chart_svg.PAPER, "linewidths": 0.7, "zorder": 5})  # fmt: skip
        if paper is not None:
            axes.axvline(paper, color=chart_svg.REFERENCE, linewidth=1.1, dashes=(4, 3), zorder=1)
        set_ticks(axes)
        axes.set_ylim(*shown.limits)
        _set_key_ticks(axes, key, [point.position for point in found.points] + ([] if paper is None else [paper]))

    means = "; ".join(
        f"{value_text(key, bin.centre)}: {formatting.format_metric(metric.name, bin.mean)}" for bin in found.bins
    )
    return chart_style.SweepChart(
        key.label,
        chart_svg.render(_THIRD_WIDTH, uid, draw),
        f"{formatting.metric_label(metric.name)} of {len(found.points)} trials against {key.label}. Means of bins: {means or 'none'}.",
        unit="logarithmic" if key.log else "",
        notes=found.sentences,
    )


def new_axes(figure: Figure, size: tuple[float, float], x_label: bool = True) -> Axes:
    """Return axes that fill a figure of `size` inches, with room for ticks and, where `x_label`, for a label below them."""
    width, height = size
    below = 0.42 if x_label else 0.25
    axes = figure.add_axes((0.52 / width, below / height, 1 - 0.62 / width, 1 - (below + 0.08) / height))
    chart_svg.style_axes(axes)
    return axes


def set_ticks(axes: Axes, integers: bool = False) -> None:
    """Set at most five short ticks on both axes; those of x are whole numbers where `integers`."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, integer=integers and axis is axes.xaxis))
        axis.set_major_formatter(FuncFormatter(lambda value, _: chart_svg.format_tick(value)))


def _render_trials(sweep: SweepData, metric: Metric, uid: str, draw: chart_svg.Draw) -> str:
    titles = {trial.number: chart_style.trial_title(trial, metric) for trial in sweep.searched if sweep.is_shown(trial)}
    return chart_style.add_titles(chart_svg.render(HALF_WIDTH, uid, draw), uid, titles)


def _draw_best_so_far(axes: Axes, trials: Sequence[TrialData], metric: Metric, last: int) -> None:
    steps: list[tuple[int, float]] = []
    for trial in trials:
        value = trial.scores[metric.name]
        if not steps or metric.sign * (value - steps[-1][1]) > 0:
            steps.append((trial.number, value))
    # The last step is drawn on to the newest trial.
    axes.plot([x for x, _ in steps] + [last], [y for _, y in steps] + [steps[-1][1]],
              drawstyle="steps-post", color=chart_style.BEST, linewidth=1.4, zorder=2)  # fmt: skip


def _draw_failed(axes: Axes, numbers: Sequence[int]) -> None:
    for number in numbers:
        # In axes coordinates: a failed trial has no value, so its cross is at the bottom.
        axes.plot([number], [0.0], linestyle="none", marker="x", markersize=4.5, color=chart_svg.INK_SOFT,
                  transform=axes.get_xaxis_transform(), gid=f"t{number}", clip_on=False)  # fmt: skip


def _draw_bins(axes: Axes, found: Sensitivity) -> None:
    for bin in found.bins:
        if bin.error:
            ends = [bin.mean - bin.error, bin.mean + bin.error]
            axes.plot([bin.centre] * 2, ends, color=chart_svg.INK, linewidth=1.1)
    # Choices have no order, so no line joins their means.
    axes.plot([bin.centre for bin in found.bins], [bin.mean for bin in found.bins], color=chart_svg.INK, zorder=4,
              linewidth=1.6 if found.key.ordered else 0, marker="s", markersize=3.6)  # fmt: skip


def _scatter(axes: Axes, key: Key, points: Sequence[Point], style: dict[str, Any]) -> None:
    # Points of one choice would cover each other: they are spread sideways by the golden ratio of their trial's number.
    spread = 0.0 if key.ordered else 0.3
    positions = [point.position + spread * ((point.trial * 0.618) % 1 - 0.5) for point in points]
    axes.scatter(positions, [point.value for point in points], **{"zorder": 3, **style})


def _set_key_ticks(axes: Axes, key: Key, positions: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter

    if not key.ordered:
        axes.set_xlim(-0.5, len(key.choices) - 0.5)
        axes.set_xticks(range(len(key.choices)), [chart_style.shorten(name) for name in key.choices])
        return
    ends = [at for end in (key.low, key.high) if end is not None and (at := axis_position(key, end)) is not None]
    low, high = min([*positions, *ends], default=0.0), max([*positions, *ends], default=1.0)
    margin = 0.04 * (high - low) or 0.5
    axes.set_xlim(low - margin, high + margin)
    # The axis is of log10 values, so matplotlib's own log ticks do not fit.
    axes.xaxis.set_major_locator(FixedLocator(chart_style.tick_positions(low, high, key.log)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: chart_style.tick_label(at, key.log)))
