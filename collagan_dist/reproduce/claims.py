"""The paper's claims, each tried on our numbers: holds, does not hold, or undecided.

A comparison of two models is paired: over the same test samples, averaged over the positions of Table 1. It holds where
every number of it (SSIM and PSNR; Dice; landmark error) lies on the paper's side by more than chance over the samples
allows (p < 0.05), and does not where one lies on the other side by as much. Table 1's verdicts are those of the blended
pictures; the others stand beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean, stdev
from typing import Any

import numpy as np

from collagan_dist.reproduce import paper, statistics
from collagan_dist.reproduce.paper import Score
from collagan_dist.reproduce.results import Results
from collagan_dist.reproduce.statistics import Estimate

HOLDS, DOES_NOT, UNDECIDED, MISSING = "holds", "does not", "undecided", "not scored"
LEVEL = 0.05
_Z = 1.96
# Spearman's, above which the order of eight models is no chance (one-sided 5 %).
_ORDERED = 0.643
# How far "comparable" may lie behind: SSIM in percent, PSNR in dB.
_COMPARABLE = {"ssim": 0.5, "psnr": 0.25}
_HOLE_TOLERANCE = 0.25
UNITS = {"ssim": "%", "psnr": "dB", "dice": "%", "landmark_error": "px"}
LABELS = {"ssim": "SSIM", "psnr": "PSNR", "dice": "Dice", "landmark_error": "landmark error"}

Claim = dict[str, Any]
Found = dict[str, Any]


def try_claims(results: Results, tables: tuple[int, ...]) -> list[Claim]:
    """Each claim on the asked tables: {"claim", "paper", "ours", "verdict", "details"}."""
    claims = []
    for entry in paper.paper()["claims"]:
        if entry["table"] in tables:
            claims.append({"table": entry["table"], "claim": entry["text"], **_KINDS[entry["kind"]](entry, results)})
    return claims


def seeds_note(results: Results, tables: tuple[int, ...]) -> str:
    """What the standard errors cover."""
    counts = {m: len(results.seeds(m, _pooled(t)[0])) for t in tables for m in paper.rows(t)}
    several = {m: n for m, n in counts.items() if n > 1}
    single = [m for m, n in counts.items() if n == 1]
    text = "Standard errors are those over test samples."
    if several:
        text += " Where a model has several seeds, the variance between them is added: " + ", ".join(f"{m} ({n})" for m, n in several.items()) + "."
    if single:
        text += f" One seed only, so that what another seed would change is not covered: {', '.join(single)}."
    return text


def _pair(entry: dict[str, Any], results: Results) -> Found:
    return _compared(entry, results, _better)


def _level(entry: dict[str, Any], results: Results) -> Found:
    return _compared(entry, results, lambda d: _no_worse(d, _COMPARABLE[d["metric"]]))


def _close(entry: dict[str, Any], results: Results) -> Found:
    return _compared(entry, results, lambda d: _within(d, entry["margin"]), f" (close: within {entry['margin']:g})")


def _compared(
    entry: dict[str, Any], results: Results, judge: Callable[[Found], str], note: str = ""
) -> Found:
    """`better` minus `worse` in every metric of the table, over its average; each verdict by `judge`."""
    table, better, worse = entry["table"], entry["better"], entry["worse"]
    details = [_difference(table, better, worse, kind, results) for kind in _numbers(table)]
    known = [d for d in details if d["ours"] is not None]
    for detail in known:
        detail["verdict"] = judge(detail)
    said = ", ".join(_signed(d["paper"], d["metric"]) for d in details[: _headline(table)])
    if len(known) < len(details):
        return {"paper": said, "ours": None, "verdict": MISSING, "details": known}
    ours = ", ".join(_signed(d["ours"], d["metric"], d["se"]) + d["stars"] for d in details[: _headline(table)])
    return {"paper": said + note, "ours": ours, "verdict": _worst([d["verdict"] for d in details[: _headline(table)]]), "details": details}


def _difference(table: int, better: str, worse: str, kind: str, results: Results) -> Found:
    """One metric of a comparison: on average over the table's columns, and for each of Table 1's positions."""
    scores = _averaged(table, kind)
    one, other = _mean_over(scores, better, results), _mean_over(scores, worse, results)
    theirs = [paper.printed(table, better, c, kind) - paper.printed(table, worse, c, kind) for c in _columns(table)]
    found: Found = {"metric": scores[0].key, "blended": scores[0].blended, "paper": round(fmean(theirs), 4), "ours": None}
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
    between = sum(stdev(values) ** 2 / len(values) for values in seeds if len(values) > 1)
    total = None if se is None else float(np.sqrt(se**2 + between))
    p = statistics.p_value(gap.value, total)
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


def _reduction(entry: dict[str, Any], results: Results) -> Found:
    """The relative change of the average, with its 95 % interval by the delta method."""
    table, score = entry["table"], _pooled(entry["table"])[0]
    now, before = (paper.printed(table, entry[which], "average") for which in ("better", "worse"))
    said = f"{100 * (now / before - 1):+.1f} %".replace("-", "−")
    one, other = results.estimate(entry["better"], score), results.estimate(entry["worse"], score)
    if one is None or other is None or other.value == 0:
        return {"paper": said, "ours": None, "verdict": MISSING, "details": []}
    change = statistics.relative_change(one, other)
    if change.se is None:
        return {"paper": said, "ours": f"{100 * change.value:+.1f} %", "verdict": UNDECIDED, "details": []}
    low, high = change.value - _Z * change.se, change.value + _Z * change.se
    verdict = HOLDS if high < 0 else DOES_NOT if low > 0 else UNDECIDED
    ours = f"{100 * change.value:+.1f} % (95 %: {100 * low:+.1f} to {100 * high:+.1f})".replace("-", "−")
    detail = {"ours": change.value, "se": change.se, "interval": [low, high], "paper": now / before - 1,
              "paper_in_interval": low <= now / before - 1 <= high}  # fmt: skip
    return {"paper": said, "ours": ours, "verdict": verdict, "details": [detail]}


def _order(entry: dict[str, Any], results: Results) -> Found:
    """Spearman's rank correlation of each column with the paper's, by metric, blended and not."""
    details = []
    for kind in paper.kinds(1):
        columns = {c: _column(c, kind, results) for c in paper.columns(1)}
        ranks = {c: statistics.rank_correlation(*pair) if pair else None for c, pair in columns.items()}
        known = [value for value in ranks.values() if value is not None]
        mean = fmean(known) if len(known) == len(ranks) else None
        details.append({"metric": kind.removesuffix("_blended"), "blended": kind.endswith("_blended"), "ours": mean, "columns": ranks})
    first = [d["ours"] for d in details[: _headline(1)]]
    said = "rank correlation 1"
    if any(value is None for value in first):
        return {"paper": said, "ours": None, "verdict": MISSING, "details": details}
    verdict = _worst([HOLDS if v > _ORDERED else DOES_NOT if v <= 0 else UNDECIDED for v in first])
    ours = ", ".join(f"{LABELS[d['metric']]} {d['ours']:.2f}" for d in details[: _headline(1)])
    return {"paper": said, "ours": f"{ours} (mean of six columns)", "verdict": verdict, "details": details}


def _column(column: str, kind: str, results: Results) -> tuple[list[float], list[float]] | None:
    """(ours, the paper's) numbers of all models in a column; None when one is missing."""
    ours = [results.values(model, paper.score(1, column, kind)) for model in paper.rows(1)]
    if not all(ours):
        return None
    return [fmean(values) for values in ours], [paper.printed(1, m, column, kind) for m in paper.rows(1)]


def _last(entry: dict[str, Any], results: Results) -> Found:
    """In how many cases a model is the worst of the eight."""
    at = paper.rows(1).index(entry["model"])
    pairs = [_column(c, kind, results) for kind in paper.kinds(1)[: _headline(1)] for c in paper.columns(1)]
    cases = len(pairs)
    said = sum(min(p[1]) == p[1][at] for p in pairs if p) if all(pairs) else cases
    if not all(pairs):
        return {"paper": f"{said} of {cases}", "ours": None, "verdict": MISSING, "details": []}
    worst = sum(min(pair[0]) == pair[0][at] for pair in pairs if pair)
    verdict = HOLDS if worst == cases else DOES_NOT if worst <= cases // 2 else UNDECIDED
    return {"paper": f"{said} of {cases}", "ours": f"{worst} of {cases}", "verdict": verdict, "details": []}


def _hole(entry: dict[str, Any], results: Results) -> Found:
    height, width = paper.paper()["hole"]
    sizes = results.hole_sizes(paper.score(1, column, "psnr") for column in paper.columns(1))
    said = f"{height}x{width}"
    if len(sizes) < len(paper.columns(1)):
        return {"paper": said, "ours": None, "verdict": MISSING, "details": []}
    h, w = (fmean(side) for side in zip(*sizes, strict=True))
    near = all(abs(ours / theirs - 1) <= _HOLE_TOLERANCE for ours, theirs in ((h, height), (w, width)))
    return {"paper": said, "ours": f"{h:.0f}x{w:.0f}", "verdict": HOLDS if near else DOES_NOT, "details": []}


_KINDS: dict[str, Callable[[dict[str, Any], Results], Found]] = {
    "pair": _pair, "level": _level, "close": _close, "reduction": _reduction, "order": _order, "last": _last, "hole": _hole,
}  # fmt: skip


def _better(detail: Found) -> str:
    if detail["p"] is None or detail["p"] >= LEVEL:
        return UNDECIDED
    return HOLDS if (detail["ours"] > 0) == detail["higher_is_better"] else DOES_NOT


def _no_worse(detail: Found, margin: float) -> str:
    """Not inferior by more than `margin`."""
    if detail["se"] is None:
        return UNDECIDED
    low, high = detail["ours"] - _Z * detail["se"], detail["ours"] + _Z * detail["se"]
    return HOLDS if low > -margin else DOES_NOT if high < -margin else UNDECIDED


def _within(detail: Found, margin: float) -> str:
    """Equivalent up to `margin`."""
    if detail["se"] is None:
        return UNDECIDED
    low, high = detail["ours"] - _Z * detail["se"], detail["ours"] + _Z * detail["se"]
    return HOLDS if -margin < low and high < margin else DOES_NOT if high < -margin or low > margin else UNDECIDED


def _worst(verdicts: list[str]) -> str:
    return next((v for v in (DOES_NOT, UNDECIDED) if v in verdicts), HOLDS)


def _numbers(table: int) -> tuple[str, ...]:
    return paper.kinds(table)


def _headline(table: int) -> int:
    """How many of a table's numbers decide: Table 1's blended ones."""
    return len(paper.METRICS) if table == 1 else 1


def _columns(table: int) -> tuple[str, ...]:
    """The columns whose mean a comparison is about: Table 1 has no average of its own."""
    return paper.columns(1) if table == 1 else ("average",)


def _averaged(table: int, kind: str) -> list[Score]:
    return [paper.score(table, column, kind) for column in _columns(table)]


def _pooled(table: int) -> list[Score]:
    return _averaged(table, paper.kinds(table)[0])


def _mean_over(scores: list[Score], model: str, results: Results) -> Estimate | None:
    parts = [part for score in scores if (part := results.estimate(model, score)) is not None]
    return statistics.average(parts) if len(parts) == len(scores) else None


def _signed(value: float, metric: str, se: float | None = None) -> str:
    error = "" if se is None else f" ± {se:.2f}"
    return f"{LABELS[metric]} {value:+.2f}{error} {UNITS[metric]}".replace("-", "−")
