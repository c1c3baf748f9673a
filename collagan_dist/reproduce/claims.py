"""The paper's claims, each tested on our numbers: holds, does not hold, or undecided.

A comparison of two models is paired over the test samples, and averaged over the positions of Table 1. It holds where
every metric (SSIM and PSNR; Dice; landmark error) is significantly better. It does not hold where one is significantly
worse. Significant is p < 0.05 after Holm's correction for all comparisons of the requested tables, those of the controls
among them. Verdicts of Table 1 are those of the blended pictures; the others are given beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from statistics import fmean
from typing import Any

from collagan_dist.reproduce import comparison, paper, statistics
from collagan_dist.reproduce.comparison import (
    DOES_NOT,
    HOLDS,
    LABELS,
    MISSING,
    UNDECIDED,
    Evidence,
    Found,
    headline_scores,
)
from collagan_dist.reproduce.results import Results

# Spearman's rank correlation of eight models is above this by chance in 5 % of cases (one-sided).
_SIGNIFICANT_CORRELATION = 0.643
# How far "comparable" may be behind: SSIM in percent, PSNR in dB. The paper names no margin.
_COMPARABLE = {"ssim": 0.5, "psnr": 0.25}
_HOLE_TOLERANCE = 0.25  # of the paper's 40x48 pixels, which it calls an average

Claim = dict[str, Any]


def evaluate_claims(results: Results, tables: tuple[int, ...], models: Collection[str] = ()) -> dict[str, list[Claim]]:
    """Return the paper's "claims" about `tables`, and what the "controls" show of its argument.

    Where `models` are given, these are the claims about them alone.
    Each is {"table", "about", "claim", "paper", "ours", "verdict", "details"}. What compares two models names them, "better" and
    "worse", and its details have a number in the paper ("paper") and here ("ours") with its 95 % "interval", in "unit". A comparison also has "p"
    and "p_holm".
    """
    found = {
        name: [_evaluate(entry, results) for entry in paper.paper()[name] if _is_planned(entry, tables, models)]
        for name in ("claims", "controls")
    }
    planned = [claim for group in found.values() for claim in group if "p" in claim]
    # What is not scored yet counts: how strict a test is must not depend on how far the runs are.
    for claim, p in zip(planned, statistics.holm([1.0 if c["p"] is None else c["p"] for c in planned]), strict=True):
        claim["p_holm"] = None if claim["p"] is None else p
        if claim["verdict"] != MISSING:
            claim["verdict"] = comparison.decide((claim["verdict"], claim["p_holm"]))
    return found


def _is_planned(entry: dict[str, Any], tables: tuple[int, ...], models: Collection[str]) -> bool:
    compared = {entry["better"], entry["worse"]} if "better" in entry else set(paper.rows(entry["table"]))
    return entry["table"] in tables and (not models or compared <= set(models))


def _evaluate(entry: dict[str, Any], results: Results) -> Claim:
    head = {"table": entry["table"], "about": entry["about"], "claim": entry["text"]}
    head |= {side: entry[side] for side in ("better", "worse") if side in entry}
    return head | _KINDS[entry["kind"]](entry, results)


def seeds_note(results: Results, tables: tuple[int, ...]) -> str:
    """Return a sentence or two about what the standard errors cover."""
    models = {t: (*paper.rows(t), *paper.controls(t)) for t in tables}
    counts = {m: len(results.seeds(m, headline_scores(t, results)[0])) for t in tables for m in models[t]}
    several = ", ".join(f"{m} ({n})" for m, n in counts.items() if n > 1)
    single = ", ".join(m for m, n in counts.items() if n == 1)
    text = "Standard errors are those over test samples."
    if several:
        text += f" Where a model has several seeds, the variance between them is added: {several}."
    if single:
        text += f" One seed only, so that what another seed would change is not covered: {single}."
    return text


def _pair(entry: dict[str, Any], results: Results) -> Found:
    return _compared(entry, results, comparison.evidence_of_better)


def _level(entry: dict[str, Any], results: Results) -> Found:
    return _compared(entry, results, lambda d: comparison.evidence_of_between(d, -_COMPARABLE[d["metric"]], math.inf))


def _close(entry: dict[str, Any], results: Results) -> Found:
    margin = entry["margin"]
    note = f" (close: within {margin:g})"
    return _compared(entry, results, lambda d: comparison.evidence_of_between(d, -margin, margin), note)


def _compared(entry: dict[str, Any], results: Results, evidence: Callable[[Found], Evidence], note: str = "") -> Found:
    """Return `better` minus `worse` in every metric of the table, over its average, each with its own verdict.

    The verdict of all is what they speak for: whether that is significant is decided with the other comparisons.
    """
    table, better, worse = entry["table"], entry["better"], entry["worse"]
    details = [comparison.difference(table, better, worse, kind, results) for kind in paper.kinds(table)]
    # A comparison needs both models at every position: an average over some would compare other holes than the paper.
    known = [d for d in details if d["ours"] is not None]
    for detail in known:
        detail["verdict"] = comparison.decide(evidence(detail))
    deciding = details[: _deciding(table)]
    theirs = ", ".join(comparison.signed(d["paper"], d["metric"]) for d in deciding if d["paper"] is not None)
    theirs = (theirs + note).strip()
    if len(known) < len(details):
        return {"paper": theirs, "ours": None, "verdict": MISSING, "details": known, "p": None}
    verdict, p = comparison.all_hold([evidence(detail) for detail in deciding])
    return {
        "paper": theirs,
        "ours": ", ".join(comparison.signed(d["ours"], d["metric"], d["se"]) + d["stars"] for d in deciding),
        "verdict": verdict,
        "details": details,
        "p": p,
    }


def _reduction(entry: dict[str, Any], results: Results) -> Found:
    """Return the relative change of the table's average, with its 95 % interval.

    The claim is a number, so it holds where the number lies in the interval. Whether the average falls is said beside it.
    """
    table, models = entry["table"], (entry["better"], entry["worse"])
    now, before = (paper.printed(table, model, "average") for model in models)
    theirs = 100 * (now / before - 1)
    said = f"{theirs:+.1f} %".replace("-", "−")
    scores = headline_scores(table, results)
    detail = comparison.measure(lambda to, start: 100 * (to / start - 1), scores, models, results)
    if detail is None:
        return {"paper": said, "ours": None, "verdict": MISSING, "details": []}
    ours = f"{detail['ours']:+.1f} %"
    if detail["se"] is None:
        return {"paper": said, "ours": ours, "verdict": UNDECIDED, "details": []}
    low, high = comparison.interval(detail)
    change = "falls" if high < 0 else "rises" if low > 0 else "no clear change"
    ours = f"{ours} (95 %: {low:+.1f} to {high:+.1f}): {change}".replace("-", "−")
    detail |= {"metric": f"{scores[0].key}_change", "unit": "%",
               "interval": [low, high], "paper": theirs, "change": change}  # fmt: skip
    return {"paper": said, "ours": ours, "verdict": HOLDS if low <= theirs <= high else DOES_NOT, "details": [detail]}


def _order(entry: dict[str, Any], results: Results) -> Found:
    """Return Spearman's rank correlation of each column with the paper's, by metric, blended and not."""
    details: list[Found] = []
    for kind in paper.kinds(1):
        columns = {c: _column(c, kind, results) for c in paper.columns(1)}
        ranks = {c: statistics.rank_correlation(*pair) if pair else None for c, pair in columns.items()}
        known = [value for value in ranks.values() if value is not None]
        mean = fmean(known) if len(known) == len(ranks) else None
        metric, blended = kind.removesuffix("_blended"), kind.endswith("_blended")
        details.append({"metric": metric, "blended": blended, "ours": mean, "columns": ranks})
    # The claim is about the printed table, so both metrics decide, as for comparisons.
    first = [d["ours"] for d in details[: _deciding(1)]]
    said = "rank correlation 1"
    if any(value is None for value in first):
        return {"paper": said, "ours": None, "verdict": MISSING, "details": details}
    verdict = _worst([HOLDS if v > _SIGNIFICANT_CORRELATION else DOES_NOT if v <= 0 else UNDECIDED for v in first])
    ours = ", ".join(f"{LABELS[d['metric']]} {d['ours']:.2f}" for d in details[: _deciding(1)])
    return {"paper": said, "ours": f"{ours} (mean of six columns)", "verdict": verdict, "details": details}


def _column(column: str, kind: str, results: Results) -> tuple[list[float], list[float]] | None:
    """Return (ours, the paper's) numbers of all models in a column; None when one is missing."""
    ours = [results.values(model, results.score(1, column, kind)) for model in paper.rows(1)]
    if not all(ours):
        return None
    return [fmean(values) for values in ours], [paper.printed(1, m, column, kind) for m in paper.rows(1)]


def _last(entry: dict[str, Any], results: Results) -> Found:
    """Return in how many cases a model is the worst of the eight."""
    at = paper.rows(1).index(entry["model"])
    pairs = [_column(c, kind, results) for kind in paper.kinds(1)[: _deciding(1)] for c in paper.columns(1)]
    cases = len(pairs)
    # A tie with another model counts as the worst, for the paper's rounded numbers as for ours.
    said = sum(min(p[1]) == p[1][at] for p in pairs if p) if all(pairs) else cases
    if not all(pairs):
        return {"paper": f"{said} of {cases}", "ours": None, "verdict": MISSING, "details": []}
    worst = sum(min(pair[0]) == pair[0][at] for pair in pairs if pair)
    verdict = HOLDS if worst == cases else DOES_NOT if worst <= cases // 2 else UNDECIDED
    return {"paper": f"{said} of {cases}", "ours": f"{worst} of {cases}", "verdict": verdict, "details": []}


def _hole(entry: dict[str, Any], results: Results) -> Found:
    height, width = paper.paper()["hole"]
    sizes = results.hole_sizes(results.score(1, column, "psnr") for column in paper.columns(1))
    said = f"{height}x{width} (near: within {_HOLE_TOLERANCE:.0%})"
    if len(sizes) < len(paper.columns(1)):
        return {"paper": said, "ours": None, "verdict": MISSING, "details": []}
    # Each position has holes of its own size; the paper gives their mean.
    h, w = (fmean(side) for side in zip(*sizes, strict=True))
    near = all(abs(ours / theirs - 1) <= _HOLE_TOLERANCE for ours, theirs in ((h, height), (w, width)))
    return {"paper": said, "ours": f"{h:.0f}x{w:.0f}", "verdict": HOLDS if near else DOES_NOT, "details": []}


_KINDS: dict[str, Callable[[dict[str, Any], Results], Found]] = {
    "pair": _pair, "level": _level, "close": _close, "reduction": _reduction, "order": _order, "last": _last, "hole": _hole,
}  # fmt: skip


def _worst(verdicts: list[str]) -> str:
    # One metric that got worse refutes a claim, even if another one is undecided.
    return next((v for v in (DOES_NOT, UNDECIDED) if v in verdicts), HOLDS)


def _deciding(table: int) -> int:
    """Return how many of a table's numbers decide: the first ones, which are the blended ones in Table 1."""
    return len(paper.METRICS) if table == 1 else 1
