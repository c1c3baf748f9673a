"""Two models over the same test samples: the difference with its error, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, variance
from typing import Any

import numpy as np

from collagan_dist.reproduce import paper, statistics
from collagan_dist.reproduce.paper import Score
from collagan_dist.reproduce.results import Results
from collagan_dist.reproduce.statistics import Estimate

HOLDS, DOES_NOT, UNDECIDED, MISSING = "holds", "does not", "undecided", "not scored"
LEVEL = 0.05
UNITS = {"ssim": "%", "psnr": "dB", "dice": "%", "landmark_error": "px"}
LABELS = {"ssim": "SSIM", "psnr": "PSNR", "dice": "Dice", "landmark_error": "landmark error"}

Found = dict[str, Any]
Variances = list[tuple[float, int]]  # each with its degrees of freedom


def difference(table: int, better: str, worse: str, kind: str, results: Results) -> Found:
    """One metric of a comparison: on average over the table's columns, and for each of Table 1's positions."""
    scores = averaged(table, kind)
    one, other = mean_over(scores, better, results), mean_over(scores, worse, results)
    theirs = [paper.printed(table, better, c, kind) - paper.printed(table, worse, c, kind) for c in _columns(table)]
    found: Found = {
        "metric": scores[0].key,
        "blended": scores[0].blended,
        "paper": round(fmean(theirs), 4),
        "ours": None,
    }
    if one is None or other is None:
        return found
    gap = statistics.difference(one, other)
    found |= _tested(gap, seed_variances(scores, (better, worse), results))
    found["higher_is_better"] = scores[0].higher_is_better
    if table == 1:
        found["positions"] = {score.hole: _position(score, better, worse, results) for score in scores}
    if table == 2:
        found["interval"] = _interval(scores[0], better, worse, results)
    return found


def _position(score: Score, better: str, worse: str, results: Results) -> Found:
    one, other = results.estimate(better, score), results.estimate(worse, score)
    assert one is not None and other is not None
    return _tested(statistics.difference(one, other), seed_variances([score], (better, worse), results))


def _tested(gap: Estimate, seeds: Variances) -> Found:
    found = with_seeds(gap, seeds)
    p = statistics.p_value(gap.value, found["se"], found["freedom"])
    return found | {"p": p, "stars": statistics.stars(p)}


def with_seeds(estimate: Estimate, seeds: Variances) -> Found:
    """An estimate with its error; with several seeds of a model, the variance of its mean over them is added."""
    se = estimate.se
    between = sum(part for part, _ in seeds)
    found: Found = {
        "ours": estimate.value,
        "se": None if se is None else float(np.sqrt(se**2 + between)),
        "freedom": statistics.freedom([(se**2 if se else 0.0, len(estimate.ids_N) - 1), *seeds]),
        "samples": len(estimate.ids_N),
    }
    return found | ({"se_samples": se, "sd_seeds": float(np.sqrt(between))} if between else {})


def seed_variances(
    scores: list[Score], models: Sequence[str], results: Results, weights: Sequence[float] = (1.0, 1.0)
) -> Variances:
    """Of each model with several seeds: the variance of its mean over them, averaged over `scores`, times its weight squared."""
    found = []
    for model, weight in zip(models, weights, strict=True):
        by_score = [results.seeds(model, score) for score in scores]
        common = [seed for seed in by_score[0] if all(seed in one for one in by_score)]
        values = [fmean(one[seed].value for one in by_score) for seed in common]
        if len(values) > 1:
            found.append((weight**2 * variance(values) / len(values), len(values) - 1))
    return found


def _interval(score: Score, better: str, worse: str, results: Results) -> list[float] | None:
    """95 % of a paired bootstrap of the pooled mean Dice, percent, of the first seeds."""
    one, other = results.dice_counts(better, score), results.dice_counts(worse, score)
    if one is None or other is None:
        return None
    ids, at_one, at_other = np.intersect1d(one[0], other[0], return_indices=True)
    if len(ids) < 2:
        return None
    low, high = statistics.bootstrap_dice(one[1][at_one], other[1][at_other])
    return [100 * low, 100 * high]


def better(detail: Found) -> str:
    if detail["p"] is None or detail["p"] >= LEVEL:
        return UNDECIDED
    return HOLDS if (detail["ours"] > 0) == detail["higher_is_better"] else DOES_NOT


def no_worse(detail: Found, margin: float) -> str:
    """Not inferior by more than `margin`."""
    if detail["se"] is None:
        return UNDECIDED
    low, high = interval(detail)
    return HOLDS if low > -margin else DOES_NOT if high < -margin else UNDECIDED


def within(detail: Found, margin: float) -> str:
    """Equivalent up to `margin`."""
    if detail["se"] is None:
        return UNDECIDED
    low, high = interval(detail)
    return HOLDS if -margin < low and high < margin else DOES_NOT if high < -margin or low > margin else UNDECIDED


def interval(detail: Found) -> tuple[float, float]:
    """95 % of a number with its error and degrees of freedom."""
    half = statistics.half_width(detail["se"], detail["freedom"])
    return detail["ours"] - half, detail["ours"] + half


def _columns(table: int) -> tuple[str, ...]:
    """The columns whose mean a comparison is about: Table 1 has no average of its own."""
    return paper.columns(1) if table == 1 else ("average",)


def averaged(table: int, kind: str) -> list[Score]:
    return [paper.score(table, column, kind) for column in _columns(table)]


def pooled(table: int) -> list[Score]:
    return averaged(table, paper.kinds(table)[0])


def mean_over(scores: list[Score], model: str, results: Results) -> Estimate | None:
    parts = [part for score in scores if (part := results.estimate(model, score)) is not None]
    return statistics.average(parts) if len(parts) == len(scores) else None


def signed(value: float, metric: str, se: float | None = None) -> str:
    error = "" if se is None else f" ± {se:.2f}"
    return f"{LABELS[metric]} {value:+.2f}{error} {UNITS[metric]}".replace("-", "−")
