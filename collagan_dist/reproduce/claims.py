"""The paper's claims, each tried on our numbers: holds, does not hold, or undecided.

A comparison of two models is paired: over the same test samples, averaged over the positions of Table 1. It holds where
every number of it (SSIM and PSNR; Dice; landmark error) lies on the paper's side by more than chance over the samples
allows (p < 0.05), and does not where one lies on the other side by as much. Table 1's verdicts are those of the blended
pictures; the others stand beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Any

from collagan_dist.reproduce import comparison, paper, statistics
from collagan_dist.reproduce.comparison import DOES_NOT, HOLDS, LABELS, MISSING, UNDECIDED, Found, pooled, signed
from collagan_dist.reproduce.results import Results

# Spearman's, above which the order of eight models is no chance (one-sided 5 %).
_ORDERED = 0.643
# How far "comparable" may lie behind: SSIM in percent, PSNR in dB.
_COMPARABLE = {"ssim": 0.5, "psnr": 0.25}
_HOLE_TOLERANCE = 0.25

Claim = dict[str, Any]


def try_claims(results: Results, tables: tuple[int, ...]) -> list[Claim]:
    """Each claim on the asked tables: {"claim", "paper", "ours", "verdict", "details"}."""
    claims = []
    for entry in paper.paper()["claims"]:
        if entry["table"] in tables:
            claims.append({"table": entry["table"], "claim": entry["text"], **_KINDS[entry["kind"]](entry, results)})
    return claims


def seeds_note(results: Results, tables: tuple[int, ...]) -> str:
    """What the standard errors cover."""
    counts = {m: len(results.seeds(m, pooled(t)[0])) for t in tables for m in paper.rows(t)}
    several = {m: n for m, n in counts.items() if n > 1}
    single = [m for m, n in counts.items() if n == 1]
    text = "Standard errors are those over test samples."
    if several:
        text += (
            " Where a model has several seeds, the variance between them is added: "
            + ", ".join(f"{m} ({n})" for m, n in several.items())
            + "."
        )
    if single:
        text += f" One seed only, so that what another seed would change is not covered: {', '.join(single)}."
    return text


def _pair(entry: dict[str, Any], results: Results) -> Found:
    return _compared(entry, results, comparison.better)


def _level(entry: dict[str, Any], results: Results) -> Found:
    return _compared(entry, results, lambda d: comparison.no_worse(d, _COMPARABLE[d["metric"]]))


def _close(entry: dict[str, Any], results: Results) -> Found:
    return _compared(
        entry, results, lambda d: comparison.within(d, entry["margin"]), f" (close: within {entry['margin']:g})"
    )


def _compared(entry: dict[str, Any], results: Results, judge: Callable[[Found], str], note: str = "") -> Found:
    """`better` minus `worse` in every metric of the table, over its average; each verdict by `judge`."""
    table, better, worse = entry["table"], entry["better"], entry["worse"]
    details = [comparison.difference(table, better, worse, kind, results) for kind in paper.kinds(table)]
    known = [d for d in details if d["ours"] is not None]
    for detail in known:
        detail["verdict"] = judge(detail)
    said = ", ".join(signed(d["paper"], d["metric"]) for d in details[: _headline(table)])
    if len(known) < len(details):
        return {"paper": said, "ours": None, "verdict": MISSING, "details": known}
    ours = ", ".join(signed(d["ours"], d["metric"], d["se"]) + d["stars"] for d in details[: _headline(table)])
    return {
        "paper": said + note,
        "ours": ours,
        "verdict": _worst([d["verdict"] for d in details[: _headline(table)]]),
        "details": details,
    }


def _reduction(entry: dict[str, Any], results: Results) -> Found:
    """The relative change of the average, with its 95 % interval by the delta method: over samples, and over seeds where there are several."""
    table, score = entry["table"], pooled(entry["table"])[0]
    now, before = (paper.printed(table, entry[which], "average") for which in ("better", "worse"))
    said = f"{100 * (now / before - 1):+.1f} %".replace("-", "−")
    one, other = results.estimate(entry["better"], score), results.estimate(entry["worse"], score)
    if one is None or other is None or other.value == 0:
        return {"paper": said, "ours": None, "verdict": MISSING, "details": []}
    change = statistics.relative_change(one, other)
    if change.se is None:
        return {"paper": said, "ours": f"{100 * change.value:+.1f} %", "verdict": UNDECIDED, "details": []}
    slopes = (1 / other.value, one.value / other.value**2)
    seeds = comparison.seed_variances([score], (entry["better"], entry["worse"]), results, slopes)
    detail = comparison.with_seeds(change, seeds)
    low, high = comparison.interval(detail)
    verdict = HOLDS if high < 0 else DOES_NOT if low > 0 else UNDECIDED
    ours = f"{100 * change.value:+.1f} % (95 %: {100 * low:+.1f} to {100 * high:+.1f})".replace("-", "−")
    detail |= {"interval": [low, high], "paper": now / before - 1, "paper_in_interval": low <= now / before - 1 <= high}
    return {"paper": said, "ours": ours, "verdict": verdict, "details": [detail]}


def _order(entry: dict[str, Any], results: Results) -> Found:
    """Spearman's rank correlation of each column with the paper's, by metric, blended and not."""
    details: list[Found] = []
    for kind in paper.kinds(1):
        columns = {c: _column(c, kind, results) for c in paper.columns(1)}
        ranks = {c: statistics.rank_correlation(*pair) if pair else None for c, pair in columns.items()}
        known = [value for value in ranks.values() if value is not None]
        mean = fmean(known) if len(known) == len(ranks) else None
        details.append(
            {
                "metric": kind.removesuffix("_blended"),
                "blended": kind.endswith("_blended"),
                "ours": mean,
                "columns": ranks,
            }
        )
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
    said = f"{height}x{width} (near: within {_HOLE_TOLERANCE:.0%})"
    if len(sizes) < len(paper.columns(1)):
        return {"paper": said, "ours": None, "verdict": MISSING, "details": []}
    h, w = (fmean(side) for side in zip(*sizes, strict=True))
    near = all(abs(ours / theirs - 1) <= _HOLE_TOLERANCE for ours, theirs in ((h, height), (w, width)))
    return {"paper": said, "ours": f"{h:.0f}x{w:.0f}", "verdict": HOLDS if near else DOES_NOT, "details": []}


_KINDS: dict[str, Callable[[dict[str, Any], Results], Found]] = {
    "pair": _pair, "level": _level, "close": _close, "reduction": _reduction, "order": _order, "last": _last, "hole": _hole,
}  # fmt: skip


def _worst(verdicts: list[str]) -> str:
    return next((v for v in (DOES_NOT, UNDECIDED) if v in verdicts), HOLDS)


def _headline(table: int) -> int:
    """How many of a table's numbers decide: Table 1's blended ones."""
    return len(paper.METRICS) if table == 1 else 1
