"""What the charts of a sweep share: the markers and lines of trials, their legend, the shown range of an axis, its ticks."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collagan_dist.report import chart_svg, formatting
from collagan_dist.report.sweep_data import Metric, SweepData
from collagan_dist.report.trial_data import TrialData

# The same meaning has the same look in every chart: blue trials, an orange best one, the paper's λ in the colour of the text.
TRIAL, BEST, PAPER = chart_svg.SERIES[0], chart_svg.SERIES[1], chart_svg.INK
_MAX_LABEL_CHARACTERS = 20
# From this many full-length runs on, an axis shows their range; worse trials are drawn at its edge.
_MIN_FOR_RANGE = 3


@dataclass(frozen=True)
class SweepChart:
    """A drawn chart of a sweep. `legend` are (kind of mark in parts.html, label).

    `min_width` and `max_width` are in px, 0 for none.
    """

    title: str
    svg: Any
    description: str
    legend: tuple[tuple[str, str], ...] = ()
    unit: str = ""
    notes: tuple[str, ...] = ()
    min_width: int = 0
    max_width: int = 0


@dataclass(frozen=True)
class MetricRange:
    """The part of a metric's axis that is shown: the range of the full-length runs and a little of what is worse."""

    metric: Metric
    worst: float
    best: float

    @classmethod
    def of(cls, metric: Metric, values: Sequence[float], always_shown: Sequence[float]) -> MetricRange:
        """Return the range of all `values`, or of those `always_shown` and half as much again below them."""
        signed, shown = [metric.sign * value for value in values], [metric.sign * value for value in always_shown]
        worst, best = min(signed), max(signed)
        # Trials stopped at the first rung are so far below that differences between the good ones could not be seen.
        if len(shown) >= _MIN_FOR_RANGE:
            worst = max(worst, min(shown) - 0.5 * (max(shown) - min(shown)))
        margin = 0.06 * (best - worst) or abs(best) * 0.1 or 1.0
        return cls(metric, metric.sign * (worst - margin), metric.sign * (best + margin))

    @property
    def limits(self) -> tuple[float, float]:
        return min(self.worst, self.best), max(self.worst, self.best)

    @property
    def outside_marker(self) -> str:
        """The marker, a triangle, of a value that is worse than the range."""
        return "v" if self.metric.sign > 0 else "^"

    def contains(self, value: float) -> bool:
        return self.limits[0] <= value <= self.limits[1]

    def clamp(self, value: float) -> float:
        """Return the value, or the nearest edge of the range for one outside it."""
        low, high = self.limits
        # Half a marker would be cut off at the very edge.
        room = 0.025 * (high - low)
        return value if self.contains(value) else min(max(value, low + room), high - room)


def marker_style(sweep: SweepData, trial: TrialData, best: int | None) -> dict[str, Any]:
    """Return a trial's marker for matplotlib.

    A star is the best, a diamond the paper's λ, a full dot a full-length run, a hollow one stopped early, a triangle one
    still running.
    """
    edge = {"markeredgecolor": chart_svg.PAPER, "markeredgewidth": 0.7}
    if trial.number == best:
        return {"marker": "*", "markersize": 11, "markerfacecolor": BEST, **edge, "zorder": 5}
    if trial.role == "paper":
        return {"marker": "D", "markersize": 5.5, "markerfacecolor": PAPER, **edge, "zorder": 4}
    if sweep.is_full_length(trial):
        return {"marker": "o", "markersize": 4.6, "markerfacecolor": TRIAL, "markeredgewidth": 0, "zorder": 3}
    marker = {"running": "^", "paused": "^", "failed": "x"}.get(trial.status, "o")
    hollow = {"markerfacecolor": chart_svg.PAPER, "markeredgecolor": chart_svg.INK_SOFT, "markeredgewidth": 0.9}
    return {"marker": marker, "markersize": 4.2, **hollow, "zorder": 2}


def marker_legend(sweep: SweepData, trials: Sequence[TrialData], best: int | None) -> list[tuple[str, str]]:
    """Return the legend of the markers that `marker_style` gives these trials."""
    found: dict[str, str] = {}
    for trial in trials:
        if trial.number == best:
            found["best"] = f"trial {best}, the best"
        elif trial.role == "paper":
            found["paper"] = "the paper's λ"
        elif sweep.is_full_length(trial):
            found["full"] = "full-length run"
        elif trial.status in ("running", "paused"):
            found["running"] = "not finished"
        elif trial.status == "failed":
            found["failed"] = "failed"
        else:
            found["stopped"] = "stopped early"
    return [(kind, found[kind]) for kind in ("best", "paper", "full", "stopped", "running", "failed") if kind in found]


def line_style(sweep: SweepData, trial: TrialData, best: int | None, single_point: bool, count: int) -> dict[str, Any]:
    """Return a trial's line for matplotlib, one of `count` lines."""
    # A line of one point has no length: it needs a dot to be seen.
    marker = {"marker": "o", "markersize": 2.5} if single_point else {}
    if trial.number == best:
        return {"color": BEST, "linewidth": 2.6, "zorder": 5, **marker}
    if trial.role == "paper":
        return {"color": PAPER, "linewidth": 1.8, "dashes": (4, 2), "zorder": 4, **marker}
    # Fainter among many, or hundreds of lines would fill the chart.
    alpha = (0.65 if sweep.is_full_length(trial) else 0.4) * min(1.0, (40 / count) ** 0.5)
    return {
        "color": TRIAL,
        "linewidth": 1.0 if count <= 80 else 0.8,
        "alpha": alpha,
        "zorder": 3 if sweep.is_full_length(trial) else 2,
        **marker,
    }


def best_number(sweep: SweepData, metric: Metric, trials: Sequence[TrialData]) -> int | None:
    """Return the sweep's best trial for its first metric, the best full-length run for any other."""
    if metric is sweep.main and sweep.best_trial is not None:
        return sweep.best
    scored = [trial for trial in trials if metric.name in trial.scores]
    chosen = [trial for trial in scored if sweep.is_full_length(trial)] or scored
    return max(chosen, key=lambda trial: metric.sign * trial.scores[metric.name]).number if chosen else None


def drawing_order(trial: TrialData, best: int | None) -> tuple[bool, bool]:
    """Sort key: the best and the paper's trial are drawn last, on top of all others."""
    return trial.number == best, trial.role == "paper"


def format_score(trial: TrialData, metric: Metric) -> str:
    value = trial.scores.get(metric.name)
    return formatting.format_metric(metric.name, value, value is not None)


def trial_title(trial: TrialData, metric: Metric) -> str:
    """Return the text under the pointer."""
    samples = "" if trial.samples is None else f" after {formatting.format_number(trial.samples)} samples"
    role = " (the paper's λ)" if trial.role == "paper" else ""
    return f"trial {trial.number}{role}, {trial.status}: {format_score(trial, metric)}{samples}"


def add_titles(svg: str, uid: str, titles: Mapping[int, str]) -> str:
    """Add a <title> to each trial's group of the SVG; browsers show it under the pointer."""

    # matplotlib writes no <title>; it writes the group's id, which the charts set to t<number>.
    def add(match: re.Match[str]) -> str:
        return f'<g id="{match[1]}" class="trial"><title>{html.escape(titles[int(match[2])])}</title>'

    return re.sub(rf'<g id="({re.escape(uid)}-t(\d+))">', add, svg)


def tick_positions(low: float, high: float, log: bool) -> list[float]:
    """Return a handful of round values from `low` to `high`, which are log10 of the values where `log`."""
    from matplotlib.ticker import MaxNLocator

    # All trials have the same value.
    if low == high:
        return [low]
    if not log:
        return [float(at) for at in MaxNLocator(4).tick_values(low, high) if low <= at <= high]
    # matplotlib's LogLocator leaves less than a decade with a single tick or none.
    decades = range(math.floor(low), math.ceil(high) + 1)
    found: list[float] = []
    for leading_digits in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 4, 5, 6, 7, 8, 9)):
        positions = (decade + math.log10(digit) for decade in decades for digit in leading_digits)
        found = [at for at in positions if low - 1e-9 <= at <= high + 1e-9]
        if len(found) >= 3:
            break
    # More than six labels would touch.
    return found[:: math.ceil(len(found) / 6)]


def tick_label(position: float, log: bool) -> str:
    return chart_svg.format_tick(float(f"{10**position:.3g}") if log else float(f"{position:.6g}"))


def shorten(text: str) -> str:
    return text if len(text) <= _MAX_LABEL_CHARACTERS else text[: _MAX_LABEL_CHARACTERS - 1] + "…"
