"""Sensitivity of a sweep's metric to each searched key: binned means over trials, and the sentences that they support."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import mean

from collagan_dist.report import formatting
from collagan_dist.report.evaluation import is_number
from collagan_dist.report.sweep_data import Key, Metric, SweepData
from collagan_dist.report.trial_data import Value

# Below this many full-length runs all trials are averaged; below this many trials nothing is.
MIN_TRIALS = 8
MAX_BINS = 6
TRIALS_PER_BIN = 4
# A difference counts as real beyond this many of its standard errors. The best of several bins is compared with the worst of
# several, so two errors would find a difference in every second key of pure noise; three do in about one key of twenty.
SIGNIFICANT_ERRORS = 3.0
# A loss below this share of the span of all values counts as none, even where the standard error is smaller.
NO_LOSS_SHARE = 0.05


@dataclass(frozen=True)
class Point:
    """One trial's metric against one key. `position` is on the key's axis: the value, its log10, or a choice's index."""

    trial: int
    position: float
    value: float
    full_length: bool


@dataclass(frozen=True)
class Bin:
    """Trials with neighbouring values of a key, from position `low` to `high` around their mean `centre`.

    `error` is the standard error of `mean`; None where no bin has two trials.
    """

    low: float
    high: float
    centre: float
    mean: float
    error: float | None
    count: int


@dataclass(frozen=True)
class Sensitivity:
    """What the trials say about one key.

    `bins` average the full-length runs, or all trials where `all_trials`. `short` is the result in a few words, `sentences`
    say it with numbers. `loss_sides` ("smaller", "larger") are the sides of the best range on which the metric gets worse
    beyond chance. `early_loss_sides` is the same at the first rung. Both are None for a key without order and where there
    are too few trials.
    """

    key: Key
    metric: Metric
    points: tuple[Point, ...]
    bins: tuple[Bin, ...]
    all_trials: bool
    short: str
    sentences: tuple[str, ...]
    loss_sides: frozenset[str] | None = None
    early_loss_sides: frozenset[str] | None = None


@dataclass(frozen=True)
class BinEffect:
    """What bins of `trials` trials say in a few words and with numbers, and the sides on which a loss is beyond chance."""

    short: str
    text: str
    sides: frozenset[str] | None
    trials: int


def sensitivity(sweep: SweepData, key: Key, metric: Metric) -> Sensitivity:
    """Compute points, binned means and sentences for one key."""
    points = _final_points(sweep, key, metric)
    full_length = [point for point in points if point.full_length]
    all_trials = len(full_length) < MIN_TRIALS
    used = list(points) if all_trials else full_length
    bins = make_bins(key, used)
    early, late = _at_first_rung(sweep, key, metric), describe_bins(key, metric, bins, used)
    # Among trials of many lengths the longest would win, so the first rung, where all have the same, says more.
    rung = formatting.format_number(sweep.rungs[0]) if sweep.rungs else ""
    short = f"At {rung} samples: {early.short}" if early and all_trials else late.short if late else ""
    sentences = [_no_bins_sentence(key, points)] if late is None else [late.text[:1].upper() + late.text[1:]]
    if late is not None and all_trials:
        runs = f"{len(full_length)} full-length run{'' if len(full_length) == 1 else 's'}"
        sentences = [f"Only {runs}, so the means include trials that were stopped early. {sentences[0]}"]
    if early is not None:
        sentences.append(f"At {rung} samples, before any was stopped ({early.trials} trials): {early.text}")
    short = short[:1].upper() + short[1:] or sentences.pop(0)
    sides, early_sides = (found.sides if found else None for found in (late, early))
    return Sensitivity(key, metric, points, bins, all_trials, short, tuple(sentences), sides, early_sides)


def verdict(found: Sequence[Sensitivity], sweep: SweepData) -> tuple[str, ...]:
    """Return what the trials say about the paper's claim on λ, then on which counts; nothing where no λ was searched."""
    weights = [one for one in found if one.key.name.startswith("loss.weights.")]
    claim = "The paper says that results change little within a range of λ and get worse where λ is too large or too small. "
    judged = [one for one in weights if one.loss_sides is not None or one.early_loss_sides is not None]
    if not judged:
        return (claim + "There are too few trials here to test that.",) if weights else ()
    late = [one.loss_sides for one in judged if one.loss_sides is not None]
    early = [one.early_loss_sides for one in judged if one.early_loss_sides is not None]
    trials = "all trials" if judged[0].all_trials else "full-length runs"
    parts = [f"among {trials} {_count_sides(late)}"] if late else []
    rung = formatting.format_number(sweep.rungs[0]) if sweep.rungs else ""
    parts += [f"at {rung} samples, before any trial was stopped, {_count_sides(early)}"] if early else []
    text = f"Of {len(judged)} λ searched here, the mean gets worse beyond chance ({SIGNIFICANT_ERRORS:g} standard errors) {'; '.join(parts)}."
    most = [max(len(one.loss_sides or ()), len(one.early_loss_sides or ())) for one in judged]
    return claim + _conclusion(most), text, _cautions(judged, sweep)


def axis_position(key: Key, value: Value) -> float | None:
    """Return a value's position on the key's axis (see Point); None for a value that has none."""
    if not key.ordered:
        return float(key.choices.index(value)) if value in key.choices else None
    if not is_number(value):
        return None
    number = float(value)
    # A logarithmic axis has no place for zero.
    if key.log:
        return math.log10(number) if number > 0 else None
    return number


def value_text(key: Key, position: float) -> str:
    """Return the value at a position of the key's axis, in three significant digits or as the name of the choice."""
    if not key.ordered:
        return key.choices[round(position)]
    number = 10**position if key.log else position
    if 0 < abs(number) < 1e-3:
        digits, exponent = f"{number:.2e}".split("e")
        return f"{float(digits):g}e{int(exponent)}".replace("-", "−")
    return formatting.format_number(float(f"{number:.3g}"))


def make_bins(key: Key, points: Sequence[Point]) -> tuple[Bin, ...]:
    """Return one bin a value where there are few different values, else quantiles."""
    if len(points) < MIN_TRIALS:
        return ()
    ordered = sorted(points, key=lambda point: point.position)
    positions = [point.position for point in ordered]
    # Few values, as of an integer or a choice, are compared one by one.
    if not key.ordered or len(set(positions)) <= MAX_BINS:
        return _average([list(group) for _, group in groupby(ordered, key=lambda point: point.position)])
    count = min(MAX_BINS, len(ordered) // TRIALS_PER_BIN)
    cuts = [0]
    for index in range(1, count):
        cut = round(index * len(ordered) / count)
        # Equal values stay in one bin: a cut between them would compare a value with itself.
        while cut < len(ordered) and positions[cut] == positions[cut - 1]:
            cut += 1
        if cuts[-1] < cut < len(ordered):
            cuts.append(cut)
    return _average([ordered[start:end] for start, end in zip(cuts, [*cuts[1:], len(ordered)], strict=True)])


def describe_bins(key: Key, metric: Metric, bins: tuple[Bin, ...], used: Sequence[Point]) -> BinEffect | None:
    """Return the best range and the loss outside it; None for one bin, which has nothing to be compared with."""
    if len(bins) < 2:
        return None
    best = max(bins, key=lambda bin: metric.sign * bin.mean)
    if not key.ordered:
        return _describe_choices(key, metric, bins, best)
    values = [point.value for point in used]
    no_loss = max(best.error or 0.0, NO_LOSS_SHARE * (max(values) - min(values)))

    def loss(bin: Bin) -> float:
        return metric.sign * (best.mean - bin.mean)

    first = last = bins.index(best)
    while first > 0 and loss(bins[first - 1]) <= no_loss:
        first -= 1
    while last + 1 < len(bins) and loss(bins[last + 1]) <= no_loss:
        last += 1
    low, high = value_text(key, bins[first].low), value_text(key, bins[last].high)
    outside = {"smaller": bins[:first], "larger": bins[last + 1 :]}
    sides = frozenset(side for side, part in outside.items() if any(_beyond_chance(metric, bin, best) for bin in part))
    if not sides:
        worst = formatting.format_metric(metric.name, max(map(loss, bins)), True)
        text = f"no loss beyond chance: the mean is best from {low} to {high}, at most {worst} worse elsewhere."
        return BinEffect("no effect beyond chance.", text, sides, len(used))
    margin = formatting.format_metric(metric.name, no_loss, True)
    losses = [_describe_loss(metric, side, part, best, side in sides) for side, part in outside.items() if part]
    text = f"the mean stays within {margin} of its best from {low} to {high}; {'; '.join(losses)}."
    if first == 0 or last == len(bins) - 1:
        end, word = ("lower", "smaller") if first == 0 else ("upper", "larger")
        text += f" This reaches the {end} end of the values that were tried: {word} ones may do as well."
    worse = " and ".join(side for side in outside if side in sides)
    return BinEffect(f"best from {low} to {high}; {worse} values are worse.", text, sides, len(used))


def _at_first_rung(sweep: SweepData, key: Key, metric: Metric) -> BinEffect | None:
    """Return the same analysis at the first rung, where every trial has a result."""
    # Full-length runs are those that were not stopped for being bad, so among them alone a loss is hidden.
    # PBT changes a trial's keys as it trains: its first rung says nothing about its last values.
    if sweep.scheduler == "pbt" or not sweep.rungs or not any(trial.status == "stopped" for trial in sweep.searched):
        return None
    rung, points = sweep.rungs[0], []
    for trial in sweep.searched:
        position, value = axis_position(key, trial.values.get(key.name)), trial.at(metric.name, rung)
        if position is not None and value is not None:
            points.append(Point(trial.number, position, value, False))
    return describe_bins(key, metric, make_bins(key, points), points)


def _final_points(sweep: SweepData, key: Key, metric: Metric) -> tuple[Point, ...]:
    found = []
    for trial in sweep.searched:
        position, value = axis_position(key, trial.values.get(key.name)), trial.scores.get(metric.name)
        if position is not None and value is not None:
            found.append(Point(trial.number, position, value, sweep.is_full_length(trial)))
    return tuple(found)


def _average(groups: Sequence[Sequence[Point]]) -> tuple[Bin, ...]:
    # The spread is pooled over all bins: four trials tell their own poorly.
    freedom = sum(len(group) - 1 for group in groups)
    means = [mean(point.value for point in group) for group in groups]
    squares = [(point.value - centre) ** 2 for group, centre in zip(groups, means, strict=True) for point in group]
    spread = math.sqrt(sum(squares) / freedom) if freedom else None
    return tuple(_average_bin(group, spread) for group in groups)


def _average_bin(points: Sequence[Point], spread: float | None) -> Bin:
    values, positions = [point.value for point in points], [point.position for point in points]
    error = None if spread is None else spread / math.sqrt(len(values))
    return Bin(min(positions), max(positions), mean(positions), mean(values), error, len(values))


def _describe_loss(metric: Metric, side: str, bins: Sequence[Bin], best: Bin, significant: bool) -> str:
    # The worst bin tells how much is at stake on this side.
    worst = min(bins, key=lambda bin: metric.sign * bin.mean)
    size = formatting.format_metric(metric.name, abs(best.mean - worst.mean), True)
    return f"{side} ones are up to {size} worse{'' if significant else ', which may be chance'}"


def _describe_choices(key: Key, metric: Metric, bins: Sequence[Bin], best: Bin) -> BinEffect:
    name, others, sure = value_text(key, best.centre), [], False
    for bin in sorted(bins, key=lambda bin: -metric.sign * bin.mean)[1:]:
        size = formatting.format_metric(metric.name, abs(best.mean - bin.mean), True)
        beyond = _beyond_chance(metric, bin, best)
        sure = sure or beyond
        others.append(
            f"{value_text(key, bin.centre)} (n = {bin.count}) is {size} worse{'' if beyond else ', which may be chance'}"
        )
    text = f"the mean is best with {name} (n = {best.count}); {'; '.join(others)}."
    return BinEffect(
        f"best with {name}." if sure else "no effect beyond chance.", text, None, sum(bin.count for bin in bins)
    )


def _beyond_chance(metric: Metric, bin: Bin, best: Bin) -> bool:
    if bin is best or bin.error is None or best.error is None:
        return False
    return metric.sign * (best.mean - bin.mean) > SIGNIFICANT_ERRORS * math.hypot(bin.error, best.error)


def _no_bins_sentence(key: Key, points: Sequence[Point]) -> str:
    if not points:
        return "No trial has both this key and the metric."
    if len(points) >= MIN_TRIALS:
        return f"All trials have the same value, {value_text(key, points[0].position)}."
    return f"{len(points)} trial{'' if len(points) == 1 else 's'}: too few for a mean."


def _count_sides(found: Sequence[frozenset[str]]) -> str:
    # A λ that loses on both sides is what the paper claims, so these come first.
    counts = [sum(len(sides) == size for sides in found) for size in (2, 1, 0)]
    where = ("on both sides of the best range", "on one side", "on no side")
    return ", ".join(f"{side} for {count}" for count, side in zip(counts, where, strict=True) if count)


def _conclusion(most_sides: Sequence[int]) -> str:
    """Return a sentence from the number of sides (0 to 2) on which each λ loses."""
    if min(most_sides) == 2:
        return "These trials show what the paper says."
    if max(most_sides) == 2:
        return f"These trials show what the paper says for {most_sides.count(2)} of {len(most_sides)}."
    if max(most_sides) == 1:
        return "These trials show half of what the paper says: a loss, but on one side only."
    return "These trials do not show it: within the searched ranges, no λ makes a difference beyond chance."


def _cautions(judged: Sequence[Sensitivity], sweep: SweepData) -> str:
    trials = max(sum(bin.count for bin in one.bins) for one in judged)
    text = f"With care: {trials} trials in the means, the other keys changing at the same time"
    # Several keys looked at are several chances to find a difference that is none.
    text += f", {len(judged)} keys looked at" if len(judged) > 1 else ""
    if any(trial.status == "stopped" for trial in sweep.searched) and not any(one.all_trials for one in judged):
        text += "; full-length runs are those that were not stopped for being bad, which hides a loss outside"
    return text + "."
