"""The charts of a sweep as inline SVG with the page's colours. What they show is computed in `sweep` and `sensitivity`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from collagan_dist.report import chart_svg, formatting
from collagan_dist.report.sensitivity import Sensitivity, place, value_text
from collagan_dist.report.sweep_chart_style import (
    BEST,
    TRIAL,
    Drawing,
    Frame,
    drawn_late,
    kinds_of,
    line_of,
    look_of,
    paper_number,
    shortened,
    tick,
    tick_places,
    title_of,
    value_of,
    winner,
    with_titles,
)
from collagan_dist.report.sweep_data import Key, Metric, SweepData
from collagan_dist.report.trial_data import TrialData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HALF, _SMALL = (5.3, 3.0), (4.3, 2.6)


def history(sweep: SweepData, metric: Metric, uid: str) -> Drawing | None:
    """The value of every trial by its number, the best whole run so far, the paper's value."""
    trials = [trial for trial in sweep.searched if metric.name in trial.scores]
    if not trials:
        return None
    paper = sweep.paper_trial.scores.get(metric.name) if sweep.paper_trial else None
    failed = [trial.number for trial in sweep.searched if trial.status == "failed" and metric.name not in trial.scores]
    whole = [trial for trial in trials if sweep.is_whole(trial)]
    so_far = _best_so_far(whole or trials, metric)
    best = winner(sweep, metric, trials)
    kept = [trial.scores[metric.name] for trial in trials if trial in whole or trial.role == "paper"]
    frame = Frame.of(metric, [trial.scores[metric.name] for trial in trials], kept)
    outside = [trial for trial in trials if not frame.holds(trial.scores[metric.name])]

    def paint(figure: Figure) -> None:
        axes = _axes(figure, _HALF)
        ends = [trial.number for trial in sweep.searched]
        axes.plot(
            [x for x, _ in so_far] + [max(ends)], [y for _, y in so_far] + [so_far[-1][1]],
            drawstyle="steps-post", color=BEST, linewidth=1.4, zorder=2,
        )  # fmt: skip
        for trial in trials:
            look = look_of(sweep, trial, best) | ({"marker": frame.arrow} if trial in outside else {})
            value = frame.inside(trial.scores[metric.name])
            axes.plot([trial.number], [value], linestyle="none", gid=f"t{trial.number}", **look)
        for number in failed:
            axes.plot([number], [0.0], linestyle="none", marker="x", markersize=4.5, color=chart_svg.SOFT,
                      transform=axes.get_xaxis_transform(), gid=f"t{number}", clip_on=False)  # fmt: skip
        if paper is not None:
            axes.axhline(paper, color=chart_svg.REFERENCE, linewidth=1.1, dashes=(4, 3), zorder=1)
        _ticks(axes, whole_numbers=True)
        axes.set_ylim(*frame.limits)
        axes.set_xlabel("trial", color=chart_svg.SOFT, fontsize=8.5, labelpad=3)

    legend = [("line", "best so far"), *kinds_of(sweep, [trial for trial in trials if trial not in outside], best)]
    legend += [("below" if metric.sign > 0 else "above", f"worse than the frame: {len(outside)}")] if outside else []
    legend += [] if paper is None else [("reference", f"the paper's λ: {formatting.metric(metric.name, paper)}")]
    legend += [("failed", "failed")] if failed else []
    titles = {trial.number: title_of(trial, metric) for trial in sweep.searched}
    ends = f"{len(trials)} trials; the best is trial {best} with {_of(sweep, best, metric)}."
    return Drawing(
        f"{formatting.metric_label(metric.name)} of every trial",
        with_titles(chart_svg.render(_HALF, uid, paint), uid, titles),
        f"{formatting.metric_label(metric.name)} of every trial by number: {ends}",
        tuple(legend),
        formatting.unit(metric.name),
    )


def curves(sweep: SweepData, metric: Metric, uid: str) -> Drawing | None:
    """Every trial's evaluations against samples; rungs as dotted verticals."""
    drawn = [(trial, (trial.curves or {}).get(metric.name, ())) for trial in sweep.searched]
    drawn = [(trial, curve) for trial, curve in drawn if curve]
    if not drawn:
        return None
    best = winner(sweep, metric, [trial for trial, _ in drawn])

    def paint(figure: Figure) -> None:
        axes = _axes(figure, _HALF)
        for rung in sweep.rungs:
            axes.axvline(rung, color=chart_svg.REFERENCE, linewidth=0.9, dashes=(1, 2), zorder=1)
        for trial, curve in sorted(drawn, key=lambda one: drawn_late(one[0], best)):
            axes.plot(
                *zip(*curve, strict=True),
                gid=f"t{trial.number}",
                **line_of(sweep, trial, best, len(curve) == 1, len(drawn)),
            )
        _ticks(axes)
        axes.set_xlim(0, max(*sweep.rungs[-1:], *(curve[-1][0] for _, curve in drawn), 1) * 1.02)
        axes.set_xlabel("samples", color=chart_svg.SOFT, fontsize=8.5, labelpad=3)

    legend = [("trial-line", "a trial"), ("best-line", f"trial {best}, the best")]
    if any(trial.role == "paper" for trial, _ in drawn) and paper_number(sweep) != best:
        legend.append(("paper-line", "the paper's λ"))
    if sweep.rungs:
        legend.append(("rung", "rungs" if sweep.scheduler != "pbt" else "generations"))
    titles = {trial.number: title_of(trial, metric) for trial in sweep.searched}
    return Drawing(
        f"{formatting.metric_label(metric.name)} on the way",
        with_titles(chart_svg.render(_HALF, uid, paint), uid, titles),
        f"{formatting.metric_label(metric.name)} of {len(drawn)} trials against samples; the best is trial {best}.",
        tuple(legend),
        formatting.unit(metric.name),
    )


def key_scatter(sweep: SweepData, found: Sensitivity, uid: str) -> Drawing:
    """The metric against one key; trials that were no whole runs fainter; means of bins; the paper's value."""
    key, metric = found.key, found.metric
    best = winner(sweep, metric, [trial for trial in sweep.searched if metric.name in trial.scores])
    paper = place(key, key.paper)
    strong = [point for point in found.points if point.whole]
    frame = Frame.of(metric, [point.value for point in found.points], [point.value for point in strong])
    outside = [point for point in found.points if not frame.holds(point.value)]
    weak = [point for point in found.points if not point.whole and point not in outside]
    edge = [replace(point, value=frame.inside(point.value)) for point in outside]

    def paint(figure: Figure) -> None:
        axes = _axes(figure, _SMALL, named=False)
        _scatter(axes, key, weak, {"marker": "o", "s": 13, "facecolors": "none", "edgecolors": chart_svg.SOFT, "alpha": 0.55,
                                   "linewidths": 0.8})  # fmt: skip
        _scatter(axes, key, edge, {"marker": frame.arrow, "s": 13, "facecolors": "none", "edgecolors": chart_svg.SOFT, "alpha": 0.55,
                                   "linewidths": 0.8})  # fmt: skip
        _scatter(axes, key, strong, {"marker": "o", "s": 17, "facecolors": TRIAL, "edgecolors": "none", "alpha": 0.75})
        for bin in found.bins:
            if bin.error:
                axes.plot(
                    [bin.centre] * 2, [bin.mean - bin.error, bin.mean + bin.error], color=chart_svg.INK, linewidth=1.1
                )
        axes.plot([bin.centre for bin in found.bins], [bin.mean for bin in found.bins], color=chart_svg.INK, zorder=4,
                  linewidth=1.6 if key.ordered else 0, marker="s", markersize=3.6)  # fmt: skip
        _scatter(axes, key, [point for point in found.points if point.trial == best],
                 {"marker": "*", "s": 95, "facecolors": BEST, "edgecolors": chart_svg.PAPER, "linewidths": 0.7, "zorder": 5})  # fmt: skip
        if paper is not None:
            axes.axvline(paper, color=chart_svg.REFERENCE, linewidth=1.1, dashes=(4, 3), zorder=1)
        _ticks(axes)
        axes.set_ylim(*frame.limits)
        _key_ticks(axes, key, [point.place for point in found.points] + ([] if paper is None else [paper]))

    means = "; ".join(
        f"{value_text(key, bin.centre)}: {formatting.metric(metric.name, bin.mean)}" for bin in found.bins
    )
    return Drawing(
        key.label,
        chart_svg.render(_SMALL, uid, paint),
        f"{formatting.metric_label(metric.name)} of {len(found.points)} trials against {key.label}. Means of bins: {means or 'none'}.",
        unit="logarithmic" if key.log else "",
        notes=found.sentences,
    )


def pareto(sweep: SweepData, across: Metric, down: Metric, uid: str) -> Drawing | None:
    """The second metric over the first, the front connected and its trials numbered; whole runs only, where there are any."""
    scored = [trial for trial in sweep.searched if {across.name, down.name} <= set(trial.scores)]
    trials = [trial for trial in scored if sweep.is_whole(trial) or trial.number in sweep.front] or scored
    if not trials:
        return None
    front = [trial for trial in trials if trial.number in sweep.front]

    def paint(figure: Figure) -> None:
        axes = _axes(figure, _HALF)
        line = sorted(undominated(front, across, down), key=lambda trial: trial.scores[across.name])
        axes.plot([one.scores[across.name] for one in line], [one.scores[down.name] for one in line],
                  color=BEST, linewidth=1.4, zorder=2)  # fmt: skip
        for trial in trials:
            look = look_of(sweep, trial, None)
            if trial in front and trial.role != "paper":
                look |= {"markerfacecolor": BEST, "markersize": 6.5, "markeredgecolor": chart_svg.PAPER, "zorder": 4}
            axes.plot([trial.scores[across.name]], [trial.scores[down.name]], linestyle="none", gid=f"t{trial.number}",
                      **look)  # fmt: skip
        _ticks(axes)
        axes.margins(0.07)
        _numbers(figure, axes, front, across, down)
        axes.set_xlabel(_arrow(across), color=chart_svg.SOFT, fontsize=8.5, labelpad=3)

    kinds = [
        ("front", "Pareto-optimal"),
        *kinds_of(sweep, [t for t in trials if t not in front or t.role == "paper"], None),
    ]
    names = ", ".join(
        f"trial {t.number} ({formatting.metric(across.name, t.scores[across.name])}; {formatting.metric(down.name, t.scores[down.name])})"
        for t in front
    )
    titles = {trial.number: f"{title_of(trial, across)} · {value_of(trial, down)}" for trial in trials}
    return Drawing(
        _arrow(down),
        with_titles(chart_svg.render(_HALF, uid, paint), uid, titles),
        f"{formatting.metric_label(down.name)} over {formatting.metric_label(across.name)} of {len(trials)} trials. "
        f"Pareto-optimal: {names or 'none'}.",
        tuple(kinds),
    )


def _numbers(figure: Figure, axes: Axes, front: Sequence[TrialData], across: Metric, down: Metric) -> None:
    """Each trial's number beside its mark, on the first side where none stands yet; outwards first."""
    out, up = across.sign, down.sign
    sides = ((out, up), (out, 0), (0, up), (out, -up), (-out, up), (0, -up), (-out, 0), (-out, -up))
    taken: list[tuple[float, float, float]] = []
    axes.autoscale_view()  # else the transformation below is that of empty axes
    scale = 72 / figure.dpi
    marks = {trial.number: (trial.scores[across.name], trial.scores[down.name]) for trial in front}
    points = {number: axes.transData.transform(mark) * scale for number, mark in marks.items()}
    for trial in sorted(front, key=lambda one: -across.sign * one.scores[across.name]):
        text, (x, y) = str(trial.number), points[trial.number]
        half = 2.8 * len(text)
        places = [(x + side * (half + 5), y + rise * 8, half) for side, rise in sides]
        free = [place for place in places if not any(_overlap(place, other) for other in taken)]
        middle, height, _ = chosen = free[0] if free else places[0]
        taken.append(chosen)
        axes.annotate(text, marks[trial.number], xytext=(middle - x, height - y), textcoords="offset points", ha="center",
                      va="center", fontsize=8.5, color=chart_svg.INK, zorder=6)  # fmt: skip


def _overlap(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    """Whether two numbers (middle, height, half of the width; points of 1/72 inch) run into each other."""
    return abs(one[0] - other[0]) < one[2] + other[2] and abs(one[1] - other[1]) < 9


def undominated(trials: Sequence[TrialData], first: Metric, second: Metric) -> list[TrialData]:
    """Of `trials` those that no other beats in both metrics: what a line through a front of more metrics may join."""

    def point(trial: TrialData) -> tuple[float, float]:
        return first.sign * trial.scores[first.name], second.sign * trial.scores[second.name]

    def beaten(one: tuple[float, float], other: tuple[float, float]) -> bool:
        return other != one and other[0] >= one[0] and other[1] >= one[1]

    return [trial for trial in trials if not any(beaten(point(trial), point(other)) for other in trials)]


def _best_so_far(trials: Sequence[TrialData], metric: Metric) -> list[tuple[int, float]]:
    found: list[tuple[int, float]] = []
    for trial in trials:
        value = trial.scores[metric.name]
        if not found or metric.sign * (value - found[-1][1]) > 0:
            found.append((trial.number, value))
    return found


def _axes(figure: Figure, size: tuple[float, float], named: bool = True) -> Axes:
    """Axes that fill the figure but for their ticks and, where `named`, the name below them."""
    width, height = size
    below = 0.42 if named else 0.25
    axes = figure.add_axes((0.52 / width, below / height, 1 - 0.62 / width, 1 - (below + 0.08) / height))
    chart_svg.style(axes)
    return axes


def _ticks(axes: Axes, whole_numbers: bool = False) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, integer=whole_numbers and axis is axes.xaxis))
        axis.set_major_formatter(FuncFormatter(lambda value, _: chart_svg.short(value)))


def _scatter(axes: Axes, key: Key, points: Sequence[Any], look: dict[str, Any]) -> None:
    """Points of a choice are spread sideways a little, by their trial's number, so that they do not cover each other."""
    spread = 0.0 if key.ordered else 0.3
    places = [point.place + spread * ((point.trial * 0.618) % 1 - 0.5) for point in points]
    axes.scatter(places, [point.value for point in points], **{"zorder": 3, **look})


def _key_ticks(axes: Axes, key: Key, places: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter

    if not key.ordered:
        axes.set_xlim(-0.5, len(key.choices) - 0.5)
        axes.set_xticks(range(len(key.choices)), [shortened(name) for name in key.choices])
        return
    ends = [at for end in (key.low, key.high) if end is not None and (at := place(key, end)) is not None]
    low, high = min([*places, *ends], default=0.0), max([*places, *ends], default=1.0)
    margin = 0.04 * (high - low) or 0.5
    axes.set_xlim(low - margin, high + margin)
    axes.xaxis.set_major_locator(FixedLocator(tick_places(low, high, key.log)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: tick(at, key.log)))


def _arrow(metric: Metric) -> str:
    unit = f" ({formatting.unit(metric.name)})" if formatting.unit(metric.name) else ""
    return f"{formatting.metric_label(metric.name)}{unit}, {'larger' if metric.sign > 0 else 'smaller'} is better"


def _of(sweep: SweepData, number: int | None, metric: Metric) -> str:
    value = next((t.scores.get(metric.name) for t in sweep.trials if t.number == number), None)
    return formatting.metric(metric.name, value, value is not None)
