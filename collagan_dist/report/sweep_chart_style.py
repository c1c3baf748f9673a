"""What the charts of a sweep share: the look of a trial, its words, the part of an axis that is shown, round ticks."""

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

# The same meaning has the same look in every chart: s0 (blue) trials, s1 (orange) the best, ink the paper's λ.
TRIAL, BEST, PAPER = chart_svg.SERIES[0], chart_svg.SERIES[1], chart_svg.INK
_LABEL = 20
# With so many whole runs an axis is theirs; what lies far below them stands at its edge.
_FRAMED = 3


@dataclass(frozen=True)
class Drawing:
    """A drawn chart. `legend` names kinds of marks (parts.html, `mark`) in words; `width` in px is what it needs to be read."""

    title: str
    svg: Any
    description: str
    legend: tuple[tuple[str, str], ...] = ()
    unit: str = ""
    notes: tuple[str, ...] = ()
    width: int = 0
    limit: int = 0


@dataclass(frozen=True)
class Frame:
    """The part of a metric's axis that is shown: that of the whole runs and a little of what is worse."""

    metric: Metric
    worst: float
    best: float

    @classmethod
    def of(cls, metric: Metric, values: Sequence[float], kept: Sequence[float]) -> Frame:
        """All of `values` where few or none must be `kept`; else those, with room below for as much again by half."""
        signed, known = [metric.sign * value for value in values], [metric.sign * value for value in kept]
        worst, best = min(signed), max(signed)
        if len(known) >= _FRAMED:
            worst = max(worst, min(known) - 0.5 * (max(known) - min(known)))
        margin = 0.06 * (best - worst) or abs(best) * 0.1 or 1.0
        return cls(metric, metric.sign * (worst - margin), metric.sign * (best + margin))

    @property
    def limits(self) -> tuple[float, float]:
        return min(self.worst, self.best), max(self.worst, self.best)

    @property
    def arrow(self) -> str:
        """The marker of what is worse than the frame."""
        return "v" if self.metric.sign > 0 else "^"

    def holds(self, value: float) -> bool:
        return self.limits[0] <= value <= self.limits[1]

    def inside(self, value: float) -> float:
        """The value, or the nearest place within the frame for one outside it."""
        room = 0.025 * (self.limits[1] - self.limits[0])
        return value if self.holds(value) else min(max(value, self.limits[0] + room), self.limits[1] - room)


def look_of(sweep: SweepData, trial: TrialData, best: int | None) -> dict[str, Any]:
    """A trial's mark: star the best, diamond the paper's, full a whole run, hollow one stopped early, triangle one under way."""
    edge = {"markeredgecolor": chart_svg.PAPER, "markeredgewidth": 0.7}
    if trial.number == best:
        return {"marker": "*", "markersize": 11, "markerfacecolor": BEST, **edge, "zorder": 5}
    if trial.role == "paper":
        return {"marker": "D", "markersize": 5.5, "markerfacecolor": PAPER, **edge, "zorder": 4}
    if sweep.is_whole(trial):
        return {"marker": "o", "markersize": 4.6, "markerfacecolor": TRIAL, "markeredgewidth": 0, "zorder": 3}
    marker = {"running": "^", "paused": "^", "failed": "x"}.get(trial.status, "o")
    hollow = {"markerfacecolor": chart_svg.PAPER, "markeredgecolor": chart_svg.SOFT, "markeredgewidth": 0.9}
    return {"marker": marker, "markersize": 4.2, **hollow, "zorder": 2}


def kinds_of(sweep: SweepData, trials: Sequence[TrialData], best: int | None) -> list[tuple[str, str]]:
    """The legend of the marks that `_look` gives these trials."""
    found: dict[str, str] = {}
    for trial in trials:
        if trial.number == best:
            found["best"] = f"trial {best}, the best"
        elif trial.role == "paper":
            found["paper"] = "the paper's λ"
        elif sweep.is_whole(trial):
            found["whole"] = "whole run"
        elif trial.status in ("running", "paused"):
            found["running"] = "under way"
        elif trial.status == "failed":
            found["failed"] = "failed"
        else:
            found["stopped"] = "stopped early"
    return [(kind, found[kind]) for kind in ("best", "paper", "whole", "stopped", "running", "failed") if kind in found]


def line_of(sweep: SweepData, trial: TrialData, best: int | None, alone: bool, count: int) -> dict[str, Any]:
    """A trial's line, fainter among many; a single evaluation gets a dot."""
    marker = {"marker": "o", "markersize": 2.5} if alone else {}
    if trial.number == best:
        return {"color": BEST, "linewidth": 2.6, "zorder": 5, **marker}
    if trial.role == "paper":
        return {"color": PAPER, "linewidth": 1.8, "dashes": (4, 2), "zorder": 4, **marker}
    alpha = (0.65 if sweep.is_whole(trial) else 0.4) * min(1.0, (40 / count) ** 0.5)
    return {
        "color": TRIAL,
        "linewidth": 1.0 if count <= 80 else 0.8,
        "alpha": alpha,
        "zorder": 3 if sweep.is_whole(trial) else 2,
        **marker,
    }


def winner(sweep: SweepData, metric: Metric, trials: Sequence[TrialData]) -> int | None:
    """The sweep's best for its first metric, the best whole run for the others."""
    if metric is sweep.main and sweep.best_trial is not None:
        return sweep.best
    scored = [trial for trial in trials if metric.name in trial.scores]
    chosen = [trial for trial in scored if sweep.is_whole(trial)] or scored
    return max(chosen, key=lambda trial: metric.sign * trial.scores[metric.name]).number if chosen else None


def drawn_late(trial: TrialData, best: int | None) -> tuple[bool, bool]:
    return trial.number == best, trial.role == "paper"


def paper_number(sweep: SweepData) -> int | None:
    return sweep.paper_trial.number if sweep.paper_trial else None


def value_of(trial: TrialData, metric: Metric) -> str:
    value = trial.scores.get(metric.name)
    return formatting.metric(metric.name, value, value is not None)


def title_of(trial: TrialData, metric: Metric) -> str:
    """What a pointer over a trial's mark says."""
    samples = "" if trial.samples is None else f" after {formatting.number(trial.samples)} samples"
    role = " (the paper's λ)" if trial.role == "paper" else ""
    return f"trial {trial.number}{role}, {trial.status}: {value_of(trial, metric)}{samples}"


def with_titles(svg: str, uid: str, titles: Mapping[int, str]) -> str:
    """The SVG with a <title> in each trial's group, which browsers show under the pointer."""

    def add(match: re.Match[str]) -> str:
        return f'<g id="{match[1]}" class="trial"><title>{html.escape(titles[int(match[2])])}</title>'

    return re.sub(rf'<g id="({re.escape(uid)}-t(\d+))">', add, svg)


def tick_places(low: float, high: float, log: bool) -> list[float]:
    """A handful of round values from `low` to `high`, which are logarithms where `log`."""
    from matplotlib.ticker import MaxNLocator

    if low == high:
        return [low]
    if not log:
        return [float(at) for at in MaxNLocator(4).tick_values(low, high) if low <= at <= high]
    decades = range(math.floor(low), math.ceil(high) + 1)
    found: list[float] = []
    for leads in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 4, 5, 6, 7, 8, 9)):
        places = (decade + math.log10(lead) for decade in decades for lead in leads)
        found = [at for at in places if low - 1e-9 <= at <= high + 1e-9]
        if len(found) >= 3:
            break
    return found[:: math.ceil(len(found) / 6)]


def tick(at: float, log: bool) -> str:
    return chart_svg.short(float(f"{10**at:.3g}") if log else float(f"{at:.6g}"))


def shortened(text: str) -> str:
    return text if len(text) <= _LABEL else text[: _LABEL - 1] + "…"
