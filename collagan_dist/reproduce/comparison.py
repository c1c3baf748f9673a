"""Two models over the same test samples: the difference with its error, and what it says."""

from __future__ import annotations

from statistics import fmean, stdev
from typing import Any

import numpy as np

from collagan_dist.reproduce import paper, statistics
from collagan_dist.reproduce.paper import Score
from collagan_dist.reproduce.results import Results
from collagan_dist.reproduce.statistics import Estimate

HOLDS, DOES_NOT, UNDECIDED, MISSING = "holds", "does not", "undecided", "not scored"
LEVEL = 0.05
Z = 1.96
UNITS = {"ssim": "%", "psnr": "dB", "dice": "%", "landmark_error": "px"}
LABELS = {"ssim": "SSIM", "psnr": "PSNR", "dice": "Dice", "landmark_error": "landmark error"}

Found = dict[str, Any]


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
    found |= _tested(gap, _seed_differences(scores, better, worse, results))
    found["higher_is_better"] = scores[0].higher_is_better
    if table == 1:
        found["positions"] = {score.hole: _position(score, better, worse, results) for score in scores}
    if table == 2:
        found["interval"] = _interval(scores[0], better, worse, results)
    return found


def _position(score: Score, better: str, worse: str, results: Results) -> Found:
    one, other = results.estimate(better, score), results.estimate(worse, score)
    assert one is not None and other is not None
    return _tested(statistics.difference(one, other), _seed_differences([score], better, worse, results))


def _tested(gap: Estimate, seeds: list[list[float]]) -> Found:
    """A difference with its error; with several seeds of a model, the variance of its mean over them is added."""
    se = gap.se
    parts = [(stdev(values) ** 2 / len(values), len(values) - 1) for values in seeds if len(values) > 1]
    between = sum(variance for variance, _ in parts)
    total = None if se is None else float(np.sqrt(se**2 + between))
    freedom = statistics.freedom([(se**2 if se else 0.0, len(gap.ids_N) - 1), *parts])
    p = statistics.p_value(gap.value, total, freedom)
    found = {"ours": gap.value, "se": total, "p": p, "stars": statistics.stars(p), "samples": len(gap.ids_N)}
    return found | ({"se_samples": se, "sd_seeds": float(np.sqrt(between))} if between else {})


def _seed_differences(scores: list[Score], better: str, worse: str, results: Results) -> list[list[float]]:
    """Each model's number by seed, averaged over `scores`."""
    found = []
    for model in (better, worse):
        by_score = [[one.value for one in results.seeds(model, score)] for score in scores]
        found.append([fmean(values) for values in zip(*by_score, strict=False)])
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
    low, high = detail["ours"] - Z * detail["se"], detail["ours"] + Z * detail["se"]
    return HOLDS if low > -margin else DOES_NOT if high < -margin else UNDECIDED


def within(detail: Found, margin: float) -> str:
    """Equivalent up to `margin`."""
    if detail["se"] is None:
        return UNDECIDED
    low, high = detail["ours"] - Z * detail["se"], detail["ours"] + Z * detail["se"]
    return HOLDS if -margin < low and high < margin else DOES_NOT if high < -margin or low > margin else UNDECIDED


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
