"""Parallel coordinates of a sweep: an axis for each key and one for the metric, a line for each trial."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from collagan_dist.report import chart_svg, formatting
from collagan_dist.report.sensitivity import place
from collagan_dist.report.sweep_chart_style import (
    Drawing,
    drawn_late,
    line_of,
    paper_number,
    shortened,
    tick,
    tick_places,
    title_of,
    winner,
    with_titles,
)
from collagan_dist.report.sweep_data import Key, Metric, SweepData
from collagan_dist.report.trial_data import TrialData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches of the page's 76 rem less its margins: at this width words are as large as elsewhere.
_WIDE = 11.0


def parallel(sweep: SweepData, uid: str) -> Drawing | None:
    """One axis a key and one for the first metric; a line a trial, coloured by the metric."""
    metric = sweep.main
    trials = [trial for trial in sweep.searched if metric.name in trial.scores]
    if not trials or not sweep.keys:
        return None
    best = winner(sweep, metric, trials)
    count = len(sweep.keys) + 1
    size = (min(_WIDE, 2.6 * count), 3.9)

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((0.02, 0.03, 0.96, 0.82))
        axes.axis("off")
        axes.set(xlim=(-0.25, count - 0.5), ylim=(-0.04, 1.04))
        scales = [_scale_of(sweep, key, trials) for key in sweep.keys] + [_metric_scale(trials, metric)]
        shade = _shades(trials, metric)
        for trial in sorted(trials, key=lambda one: (*drawn_late(one, best), shade[one.number])):
            places = [place(key, trial.values.get(key.name)) for key in sweep.keys] + [trial.scores[metric.name]]
            heights = [
                float("nan") if at is None else scale.height(at) for at, scale in zip(places, scales, strict=True)
            ]
            axes.plot(range(count), heights, gid=f"t{trial.number}", solid_joinstyle="round",
                      **_parallel_line(sweep, trial, best, shade))  # fmt: skip
        for index, scale in enumerate(scales):
            _axis(axes, index, scale, 9.0 if count <= 10 else 8.0)

    titles = {trial.number: title_of(trial, metric) for trial in trials}
    kinds = [("best-line", f"trial {best}, the best")]
    kinds += [("paper-line", "the paper's λ")] if paper_number(sweep) not in (None, best) else []
    low, high = ("high", "low") if metric.sign < 0 else ("low", "high")
    kinds.append(("ramp", f"{formatting.metric_label(metric.name)}: {low} to {high}"))
    if any(not sweep.is_whole(trial) for trial in trials):
        kinds.append(("faint-line", "thin: stopped early or under way"))
    return Drawing(
        "Keys and metric of every trial",
        with_titles(chart_svg.render(size, uid, paint), uid, titles),
        f"Parallel coordinates of {len(trials)} trials over {', '.join(key.label for key in sweep.keys)} "
        f"and {formatting.metric_label(metric.name)}; the best is trial {best}.",
        tuple(kinds),
        width=round(size[0] * 70),
        limit=round(size[0] * 103),
    )


@dataclass(frozen=True)
class _Scale:
    """An axis of the parallel coordinates: heights 0 to 1 for places low to high."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def height(self, at: float) -> float:
        return (at - self.low) / (self.high - self.low) if self.high != self.low else 0.5


def _scale_of(sweep: SweepData, key: Key, trials: Sequence[TrialData]) -> _Scale:
    places = [at for trial in trials if (at := place(key, trial.values.get(key.name))) is not None]
    if not key.ordered:
        ticks = tuple((float(index), shortened(name)) for index, name in enumerate(key.choices))
        return _Scale(key.label, 0, max(len(key.choices) - 1, 0), ticks)
    places += [at for end in (key.low, key.high) if end is not None and (at := place(key, end)) is not None]
    low, high = min(places, default=0.0), max(places, default=1.0)
    ticks = tuple((at, tick(at, key.log)) for at in tick_places(low, high, key.log))
    return _Scale(key.label, low, high, ticks)


def _metric_scale(trials: Sequence[TrialData], metric: Metric) -> _Scale:
    """The better end is up for every metric."""
    values = [trial.scores[metric.name] for trial in trials]
    ends = min(values), max(values)
    ticks = tuple((at, tick(at, False)) for at in tick_places(*ends, False))
    low, high = ends[:: metric.sign]
    return _Scale(formatting.metric_label(metric.name).replace(", ", "\n"), low, high, ticks)


def _axis(axes: Axes, index: int, scale: _Scale, size: float) -> None:
    axes.plot([index, index], [0, 1], color=chart_svg.REFERENCE, linewidth=1, zorder=1, solid_capstyle="butt")
    for at, text in scale.ticks:
        height = scale.height(at)
        axes.plot([index, index + 0.03], [height, height], color=chart_svg.REFERENCE, linewidth=1, zorder=6)
        axes.annotate(text, (index, height), xytext=(5, 0), textcoords="offset points", va="center",
                      fontsize=size - 0.5, color=chart_svg.SOFT, zorder=7)  # fmt: skip
    axes.annotate(_lines(scale.label), (index, 1), xytext=(0, 9), textcoords="offset points", ha="center", va="bottom",
                  fontsize=size, color=chart_svg.INK, annotation_clip=False)  # fmt: skip


def _shades(trials: Sequence[TrialData], metric: Metric) -> dict[int, int]:
    """Each trial's colour of the ramp by its rank, so that one outlier does not leave the others a single colour."""
    ordered = sorted(trials, key=lambda trial: metric.sign * trial.scores[metric.name])
    return {trial.number: index * chart_svg.RAMP_COLOURS // len(ordered) for index, trial in enumerate(ordered)}


def _parallel_line(sweep: SweepData, trial: TrialData, best: int | None, shade: Mapping[int, int]) -> dict[str, Any]:
    if trial.number == best or trial.role == "paper":
        return line_of(sweep, trial, best, False, len(shade))
    level = shade[trial.number]
    # Among many the poorer ones recede, or the good ones could not be followed.
    faint = 1.0 if len(shade) <= 60 else 0.25 + 0.65 * (level / (chart_svg.RAMP_COLOURS - 1)) ** 3
    if sweep.is_whole(trial):
        width = 1.5 if len(shade) <= 60 else 1.1
        return {"color": chart_svg.RAMP[level], "linewidth": width, "alpha": 0.9 * faint, "zorder": 3}
    return {"color": chart_svg.RAMP[level], "linewidth": 0.9, "alpha": 0.55 * faint, "zorder": 2}


def _lines(label: str) -> str:
    """A long dotted label on two lines, broken near its middle."""
    if "\n" in label or len(label) <= 12 or "." not in label:
        return label
    cuts = [match.start() + 1 for match in re.finditer(r"\.", label)]
    cut = min(cuts, key=lambda at: abs(at - len(label) / 2))
    return f"{label[:cut]}\n{label[cut:]}"
