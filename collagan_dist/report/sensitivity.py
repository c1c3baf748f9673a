"""How much a metric depends on each searched key, from the trials of a sweep: means over bins, and what they allow to say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from collagan_dist.report import formatting
from collagan_dist.report.evaluation import is_number
from collagan_dist.report.sweep_data import Key, Metric, SweepData
from collagan_dist.report.trial_data import Value

# Below this many whole runs all trials count; below it of those, nothing is averaged.
ENOUGH = 8
MAX_BINS = 6
IN_A_BIN = 4
# A difference that chance does not explain: this many standard errors of it. The best of several bins is held against the worst
# of several, so two would find "beyond chance" in every second key of pure noise; three do in about one of twenty.
SIGNIFICANT = 3.0
# Without a larger error: what counts as the same, as a share of the span of the values.
SAME = 0.05


@dataclass(frozen=True)
class Point:
    """`place` is on the key's axis: the value's logarithm to 10, the value, or the index of the choice."""

    trial: int
    place: float
    value: float
    whole: bool


@dataclass(frozen=True)
class Bin:
    """Trials with neighbouring values of the key: places (see Point) from `low` to `high`, `centre` their mean.

    `error` is the standard error of `mean` by the spread within all bins, which few trials tell better than their own.
    """

    low: float
    high: float
    centre: float
    mean: float
    error: float | None
    count: int


@dataclass(frozen=True)
class Sensitivity:
    """`bins` average the whole runs, or all trials where `all_count`. `sides` on which the metric is lost beyond chance.

    `early_sides` is the same at the first rung, where all trials still are. Both are None where the key has no order or
    too few trials tell.
    """

    key: Key
    metric: Metric
    points: tuple[Point, ...]
    bins: tuple[Bin, ...]
    all_count: bool
    sentences: tuple[str, ...]
    sides: frozenset[str] | None = None
    early_sides: frozenset[str] | None = None


def sensitivity(sweep: SweepData, key: Key, metric: Metric) -> Sensitivity:
    """Points, binned means and what they say about one key."""
    points = _points(sweep, key, metric)
    whole = [point for point in points if point.whole]
    all_count = len(whole) < ENOUGH
    used = list(points) if all_count else whole
    bins = _bins(key, used)
    early_text, early_sides = _early(sweep, key, metric)
    if len(bins) < 2:
        sentences = (_too_few(key, points), *early_text)
        return Sensitivity(key, metric, points, bins, all_count, sentences, early_sides=early_sides)
    text, sides = _say(key, metric, bins, used)
    text = text[:1].upper() + text[1:]
    if all_count:
        runs = f"{len(whole)} whole run{'' if len(whole) == 1 else 's'}"
        text = f"Only {runs}, so all trials count, those stopped early too. {text}"
    return Sensitivity(key, metric, points, bins, all_count, (text, *early_text), sides, early_sides)


def verdict(found: Sequence[Sensitivity], sweep: SweepData) -> str:
    """What these trials say about the paper's claim that results change little within a range of λ and get worse beyond."""
    weights = [one for one in found if one.key.name.startswith("loss.weights.")]
    if not weights:
        return ""
    claim = "The paper says that results change little within a range of λ and get worse where λ is too large or too small. "
    told = [one for one in weights if one.sides is not None or one.early_sides is not None]
    if not told:
        return claim + "There are too few trials here to look for that."
    late = [one.sides for one in told if one.sides is not None]
    early = [one.early_sides for one in told if one.early_sides is not None]
    text = f"Of {len(told)} λ searched here, the mean gets worse beyond chance ({SIGNIFICANT:g} standard errors) "
    parts = [f"among {'all trials' if told[0].all_count else 'whole runs'} {_sides(late)}"] if late else []
    parts += (
        [f"at {formatting.number(sweep.rungs[0])} samples, before any was stopped, {_sides(early)}"] if early else []
    )
    text += "; ".join(parts) + ". "
    most = [max(len(one.sides or ()), len(one.early_sides or ())) for one in told]
    if min(most) == 2:
        text += "These trials show what the paper says. "
    elif max(most) == 2:
        text += f"These trials show what the paper says for {most.count(2)} of {len(told)}. "
    elif max(most) == 1:
        text += "These trials show half of what the paper says: a loss, but on one side only. "
    else:
        text += "These trials do not show it: within what was searched, no λ makes a difference that chance does not explain. "
    return claim + text + _cautions(told, sweep)


def _sides(found: Sequence[frozenset[str]]) -> str:
    counts = [sum(len(sides) == size for sides in found) for size in (2, 1, 0)]
    where = ("on both sides of the best range", "on one side", "on no side")
    return ", ".join(f"{place} for {count}" for count, place in zip(counts, where, strict=True) if count)


def _early(sweep: SweepData, key: Key, metric: Metric) -> tuple[tuple[str, ...], frozenset[str] | None]:
    """The same where all trials can be compared: at the first rung. Whole runs are what was left of them.

    Not with pbt, whose keys change on the way.
    """
    if sweep.scheduler == "pbt" or not any(trial.status == "stopped" for trial in sweep.searched):
        return (), None
    rung = sweep.rungs[0] if sweep.rungs else None
    points = []
    for trial in sweep.searched:
        at = place(key, trial.values.get(key.name))
        value = None if rung is None else trial.at(metric.name, rung)
        if value is None and trial.samples == rung:
            value = trial.scores.get(metric.name)
        if at is not None and value is not None:
            points.append(Point(trial.number, at, value, False))
    bins = _bins(key, points)
    if rung is None or len(bins) < 2:
        return (), None
    text, sides = _say(key, metric, bins, points)
    return (f"At {formatting.number(rung)} samples, before any was stopped ({len(points)} trials): {text}",), sides


def place(key: Key, value: Value) -> float | None:
    """Where a value stands on the key's axis (see Point); None where it has no place there."""
    if not key.ordered:
        return float(key.choices.index(value)) if value in key.choices else None
    if not is_number(value):
        return None
    number = float(value)  # type: ignore[arg-type]
    if key.log:
        return math.log10(number) if number > 0 else None
    return number


def value_text(key: Key, at: float) -> str:
    """The value at a place of the key's axis, in three significant digits or as the choice's word."""
    if not key.ordered:
        return key.choices[round(at)]
    number = 10**at if key.log else at
    if 0 < abs(number) < 1e-3:
        digits, exponent = f"{number:.2e}".split("e")
        return f"{float(digits):g}e{int(exponent)}".replace("-", "−")
    return formatting.number(float(f"{number:.3g}"))


def _cautions(told: Sequence[Sensitivity], sweep: SweepData) -> str:
    trials = max(sum(bin.count for bin in one.bins) for one in told)
    text = f"With care: {trials} trials in the means, the other keys changing at the same time"
    text += f", {len(told)} keys looked at" if len(told) > 1 else ""
    if any(trial.status == "stopped" for trial in sweep.searched) and not any(one.all_count for one in told):
        text += "; whole runs are those that were not stopped for being bad, which hides loss outside"
    return text + "."


def _points(sweep: SweepData, key: Key, metric: Metric) -> tuple[Point, ...]:
    found = []
    for trial in sweep.searched:
        at, value = place(key, trial.values.get(key.name)), trial.scores.get(metric.name)
        if at is not None and value is not None:
            found.append(Point(trial.number, at, value, sweep.is_whole(trial)))
    return tuple(found)


def _bins(key: Key, points: Sequence[Point]) -> tuple[Bin, ...]:
    """One bin for each value where there are few, else quantiles; equal values are never parted."""
    if len(points) < ENOUGH:
        return ()
    ordered = sorted(points, key=lambda point: point.place)
    places = [point.place for point in ordered]
    if not key.ordered or len(set(places)) <= MAX_BINS:
        groups = [[point for point in ordered if point.place == one] for one in sorted(set(places))]
        return _averaged(groups)
    count = min(MAX_BINS, len(ordered) // IN_A_BIN)
    cuts = [0]
    for index in range(1, count):
        cut = round(index * len(ordered) / count)
        while cut < len(ordered) and places[cut] == places[cut - 1]:
            cut += 1
        if cuts[-1] < cut < len(ordered):
            cuts.append(cut)
    return _averaged([ordered[start:end] for start, end in zip(cuts, [*cuts[1:], len(ordered)], strict=True)])


def _averaged(groups: Sequence[Sequence[Point]]) -> tuple[Bin, ...]:
    free = sum(len(group) - 1 for group in groups)
    squares = [(point.value - mean(p.value for p in group)) ** 2 for group in groups for point in group]
    spread = math.sqrt(sum(squares) / free) if free else None
    return tuple(_bin(group, spread) for group in groups)


def _bin(points: Sequence[Point], spread: float | None) -> Bin:
    values, places = [point.value for point in points], [point.place for point in points]
    error = None if spread is None else spread / math.sqrt(len(values))
    return Bin(min(places), max(places), mean(places), mean(values), error, len(values))


def _same(metric: Metric, bins: Sequence[Bin], used: Sequence[Point]) -> float:
    """What counts as no loss: the standard error of the best bin, or a small share of the span of all values."""
    values = [point.value for point in used]
    return max(_best(metric, bins).error or 0.0, SAME * (max(values) - min(values)))


def _best(metric: Metric, bins: Sequence[Bin]) -> Bin:
    return max(bins, key=lambda bin: metric.sign * bin.mean)


def _say(key: Key, metric: Metric, bins: tuple[Bin, ...], used: Sequence[Point]) -> tuple[str, frozenset[str] | None]:
    """The range around the best bin within which the mean is as good, what is lost outside, and on which sides for sure."""
    best, same = _best(metric, bins), _same(metric, bins, used)
    if not key.ordered:
        return _say_choices(key, metric, bins, best), None

    def loss(bin: Bin) -> float:
        return metric.sign * (best.mean - bin.mean)

    first = last = bins.index(best)
    while first > 0 and loss(bins[first - 1]) <= same:
        first -= 1
    while last + 1 < len(bins) and loss(bins[last + 1]) <= same:
        last += 1
    low, high = value_text(key, bins[first].low), value_text(key, bins[last].high)
    outside = {"smaller": bins[:first], "larger": bins[last + 1 :]}
    sides = frozenset(side for side, part in outside.items() if any(_beyond_chance(metric, bin, best) for bin in part))
    if not sides:
        worst = formatting.metric(metric.name, max(map(loss, bins)), True)
        return f"no loss beyond chance: the mean is best from {low} to {high}, at most {worst} worse elsewhere.", sides
    margin = formatting.metric(metric.name, same, True)
    lost = [_lost(metric, side, part, best, side in sides) for side, part in outside.items() if part]
    text = f"the mean stays within {margin} of its best from {low} to {high}; {'; '.join(lost)}."
    if first == 0 or last == len(bins) - 1:
        end, word = ("lower", "smaller") if first == 0 else ("upper", "larger")
        text += f" This reaches the {end} end of what was tried: {word} ones may do as well."
    return text, sides


def _lost(metric: Metric, side: str, bins: Sequence[Bin], best: Bin, sure: bool) -> str:
    worst = min(bins, key=lambda bin: metric.sign * bin.mean)
    size = formatting.metric(metric.name, abs(best.mean - worst.mean), True)
    return f"{side} ones are up to {size} worse{'' if sure else ', which may be chance'}"


def _say_choices(key: Key, metric: Metric, bins: Sequence[Bin], best: Bin) -> str:
    ranked = sorted(bins, key=lambda bin: -metric.sign * bin.mean)
    others = []
    for bin in ranked[1:]:
        size = formatting.metric(metric.name, abs(best.mean - bin.mean), True)
        chance = "" if _beyond_chance(metric, bin, best) else ", which may be chance"
        others.append(f"{value_text(key, bin.centre)} (n = {bin.count}) is {size} worse{chance}")
    return f"the mean is best with {value_text(key, best.centre)} (n = {best.count}); {'; '.join(others)}."


def _beyond_chance(metric: Metric, bin: Bin, best: Bin) -> bool:
    if bin is best or bin.error is None or best.error is None:
        return False
    return metric.sign * (best.mean - bin.mean) > SIGNIFICANT * math.hypot(bin.error, best.error)


def _too_few(key: Key, points: Sequence[Point]) -> str:
    if not points:
        return "No trial has both this key and the metric."
    if len(points) >= ENOUGH:
        return f"All trials have the same value, {value_text(key, points[0].place)}."
    return f"{len(points)} trial{'' if len(points) == 1 else 's'}: too few for a mean."
