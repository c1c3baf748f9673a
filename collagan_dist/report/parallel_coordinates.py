"""Parallel coordinates of a sweep: one axis a searched key and one for the metric, one line a trial."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from collagan_dist.report import chart_svg, formatting
from collagan_dist.report import sweep_chart_style as chart_style
from collagan_dist.report.sensitivity import axis_position
from collagan_dist.report.sweep_data import Key, Metric, SweepData
from collagan_dist.report.trial_data import TrialData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The page's 76 rem less its margins: at this width the chart's text is as large as elsewhere.
_MAX_INCHES = 11.0
# From this many lines on, those of poorer trials are drawn fainter.
_MANY_LINES = 60


def draw_parallel_coordinates(sweep: SweepData, uid: str) -> chart_style.SweepChart | None:
    """Draw all trials that have the first metric; None without any."""
    metric = sweep.main
    trials = [trial for trial in sweep.searched if metric.name in trial.scores]
    if not trials or not sweep.keys:
        return None
    best = chart_style.best_number(sweep, metric, trials)
    scales = [_key_scale(key, trials) for key in sweep.keys] + [_metric_scale(trials, metric)]
    shade = _shades(trials, metric)
    size = (min(_MAX_INCHES, 2.6 * len(scales)), 3.9)

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.02, 0.03, 0.96, 0.82))
        axes.axis("off")
        axes.set(xlim=(-0.25, len(scales) - 0.5), ylim=(-0.04, 1.04))
        drawn = [trial for trial in trials if sweep.is_shown(trial)]
        for trial in sorted(drawn, key=lambda one: (*chart_style.drawing_order(one, best), shade[one.number])):
            axes.plot(range(len(scales)), _heights(sweep, trial, scales), gid=f"t{trial.number}", solid_joinstyle="round",
                      **_trial_line_style(sweep, trial, best, shade))  # fmt: skip
        for index, scale in enumerate(scales):
            _draw_axis(axes, index, scale, 9.0 if len(scales) <= 10 else 8.0)

    titles = {trial.number: chart_style.trial_title(trial, metric) for trial in trials if sweep.is_shown(trial)}
    return chart_style.SweepChart(
        "Keys and metric of every trial",
        chart_style.add_titles(chart_svg.render(size, uid, draw), uid, titles),
        f"Parallel coordinates of {len(trials)} trials over {', '.join(key.label for key in sweep.keys)} "
        f"and {formatting.metric_label(metric.name)}; the best is trial {best}.",
        tuple(_legend(sweep, trials, best)),
        # Between these the text is neither too small to read nor larger than the page's.
        min_width=round(size[0] * 70),
        max_width=round(size[0] * 103),
    )


def _legend(sweep: SweepData, trials: Sequence[TrialData], best: int | None) -> list[tuple[str, str]]:
    found = [("best-line", f"trial {best}, the best")]
    found += (
        [("paper-line", "the paper's λ")] if any(t.role == "paper" and t.number != best for t in sweep.trials) else []
    )
    worst_to_best = "high to low" if sweep.main.sign < 0 else "low to high"
    found.append(("ramp", f"{formatting.metric_label(sweep.main.name)}: {worst_to_best}"))
    if any(not sweep.is_full_length(trial) for trial in trials):
        found.append(("faint-line", "thin: stopped early or not finished"))
    return found


@dataclass(frozen=True)
class _Scale:
    """One axis of the chart: positions (see sensitivity.Point) from `low` to `high` become heights from 0 to 1."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def height(self, position: float) -> float:
        return (position - self.low) / (self.high - self.low) if self.high != self.low else 0.5


def _key_scale(key: Key, trials: Sequence[TrialData]) -> _Scale:
    positions = [at for trial in trials if (at := axis_position(key, trial.values.get(key.name))) is not None]
    if not key.ordered:
        ticks = tuple((float(index), chart_style.shorten(name)) for index, name in enumerate(key.choices))
        # A single choice is drawn in the middle, see height().
        return _Scale(key.label, 0, max(len(key.choices) - 1, 0), ticks)
    positions += [at for end in (key.low, key.high) if end is not None and (at := axis_position(key, end)) is not None]
    low, high = min(positions, default=0.0), max(positions, default=1.0)
    ticks = tuple((at, chart_style.tick_label(at, key.log)) for at in chart_style.tick_positions(low, high, key.log))
    return _Scale(key.label, low, high, ticks)


def _metric_scale(trials: Sequence[TrialData], metric: Metric) -> _Scale:
    values = [trial.scores[metric.name] for trial in trials]
    ends = min(values), max(values)
    ticks = tuple((at, chart_style.tick_label(at, False)) for at in chart_style.tick_positions(*ends, False))
    # The better end is up, also where smaller is better.
    low, high = ends[:: metric.sign]
    return _Scale(formatting.metric_label(metric.name).replace(", ", "\n"), low, high, ticks)


def _heights(sweep: SweepData, trial: TrialData, scales: Sequence[_Scale]) -> list[float]:
    positions = [axis_position(key, trial.values.get(key.name)) for key in sweep.keys] + [trial.scores[sweep.main.name]]
    # NaN leaves a gap in the line.
    return [float("nan") if at is None else scale.height(at) for at, scale in zip(positions, scales, strict=True)]


def _draw_axis(axes: Axes, index: int, scale: _Scale, size: float) -> None:
    axes.plot([index, index], [0, 1], color=chart_svg.REFERENCE, linewidth=1, zorder=1, solid_capstyle="butt")
    for position, text in scale.ticks:
        height = scale.height(position)
        axes.plot([index, index + 0.03], [height, height], color=chart_svg.REFERENCE, linewidth=1, zorder=6)
        axes.annotate(text, (index, height), xytext=(5, 0), textcoords="offset points", va="center",
                      fontsize=size - 0.5, color=chart_svg.INK_SOFT, zorder=7)  # fmt: skip
    axes.annotate(_break_label(scale.label), (index, 1), xytext=(0, 9), textcoords="offset points", ha="center",
                  va="bottom", fontsize=size, color=chart_svg.INK, annotation_clip=False)  # fmt: skip


def _shades(trials: Sequence[TrialData], metric: Metric) -> dict[int, int]:
    """Return each trial's colour of the ramp."""
    # By rank and not by value: one outlier would leave all others a single colour.
    ordered = sorted(trials, key=lambda trial: metric.sign * trial.scores[metric.name])
    return {trial.number: index * chart_svg.RAMP_COLOURS // len(ordered) for index, trial in enumerate(ordered)}


def _trial_line_style(sweep: SweepData, trial: TrialData, best: int | None, shade: Mapping[int, int]) -> dict[str, Any]:
    if trial.number == best or trial.role == "paper":
        return chart_style.line_style(sweep, trial, best, False, len(shade))
    level = shade[trial.number]
    # Among many lines the good ones could not be followed if the poorer ones were as strong.
    many = len(shade) > _MANY_LINES
    strength = 0.25 + 0.65 * (level / (chart_svg.RAMP_COLOURS - 1)) ** 3 if many else 1.0
    if sweep.is_full_length(trial):
        width = 1.1 if many else 1.5
        return {"color": chart_svg.RAMP[level], "linewidth": width, "alpha": 0.9 * strength, "zorder": 3}
    return {"color": chart_svg.RAMP[level], "linewidth": 0.9, "alpha": 0.55 * strength, "zorder": 2}


def _break_label(label: str) -> str:
    """Break a long dotted label into two lines near its middle."""
    if "\n" in label or len(label) <= 12 or "." not in label:
        return label
    cuts = [match.start() + 1 for match in re.finditer(r"\.", label)]
    cut = min(cuts, key=lambda at: abs(at - len(label) / 2))
    return f"{label[:cut]}\n{label[cut:]}"
