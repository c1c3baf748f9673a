"""Two models on the same test samples: how far they differ, with what error, and what that says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean, variance
from typing import Any

from collagan_dist.reproduce import paper, statistics
from collagan_dist.reproduce.paper import Score
from collagan_dist.reproduce.results import Results

HOLDS, DOES_NOT, UNDECIDED, MISSING = "holds", "does not", "undecided", "not scored"
LEVEL = 0.05  # of significance, two-sided
UNITS = {"ssim": "%", "psnr": "dB", "dice": "%", "landmark_error": "px"}
LABELS = {"ssim": "SSIM", "psnr": "PSNR", "dice": "Dice", "landmark_error": "landmark error"}

Found = dict[str, Any]
# What the numbers speak for, HOLDS or DOES_NOT, and the two-sided p of that; None where there is no error.
Evidence = tuple[str, float | None]


def difference(table: int, better: str, worse: str, kind: str, results: Results) -> Found:
    """Return one metric of a comparison: on average over the table's columns, and at each of Table 1's positions."""
    scores = headline_scores(table, results, kind)
    columns = _headline_columns(table)
    found: Found = {
        "metric": scores[0].key, "unit": UNITS[scores[0].key], "blended": scores[0].blended,
        "paper": _printed_difference(table, better, worse, kind), "ours": None,
    }  # fmt: skip
    measured = _tested(scores, better, worse, results)
    if measured is None:
        return found
    found |= measured | {"higher_is_better": scores[0].higher_is_better}
    if table == 1:
        by_column = zip(columns, scores, strict=True)
        found["positions"] = {column: _tested([score], better, worse, results) for column, score in by_column}
    return found | {"interval": None if found["se"] is None else list(interval(found))}


def _printed_difference(table: int, better: str, worse: str, kind: str) -> float | None:
    """Return the paper's difference; None where one of the models is a control, for which it prints nothing."""
    if not {better, worse} <= set(paper.rows(table)):
        return None
    columns = _headline_columns(table)
    theirs = [paper.printed(table, better, c, kind) - paper.printed(table, worse, c, kind) for c in columns]
    return round(fmean(theirs), 4)


def _tested(scores: Sequence[Score], better: str, worse: str, results: Results) -> Found | None:
    found = measure(lambda one, other: one - other, scores, (better, worse), results)
    if found is None:
        return None
    p = statistics.p_value(found["ours"], found["se"], found["freedom"])
    return found | {"p": p, "stars": statistics.stars(p)}


def measure(
    quantity: Callable[..., Any], scores: Sequence[Score], models: Sequence[str], results: Results
) -> Found | None:
    """Return a quantity of models, such as a difference, with its error; None where a model has no number.

    `quantity` is a function of the models' means over `scores` and over their seeds. Its error comes from the test samples
    and, where a model has several seeds, from those. A model with one seed adds nothing: what another seed would change
    is then not covered.
    """
    seeds = [[results.seeds(model, score) for score in scores] for model in models]
    if not all(by_seed for by_score in seeds for by_seed in by_score):
        return None
    # Seeds are averaged at each position first: a seed that lacks a position counts at the others.
    means = [statistics.average([statistics.average(list(by.values())) for by in by_score]) for by_score in seeds]
    estimate = statistics.combine(quantity, *means)
    between = []
    for at, by_score in enumerate(seeds):
        # Only a seed with every position shows what another seed would change in their average.
        common = [seed for seed in by_score[0] if all(seed in by_seed for by_seed in by_score)]
        fixed = [mean.value for mean in means]
        values = []
        for seed in common:
            # The quantity with this seed's mean in place of the model's: exact for a difference, close for a ratio.
            fixed[at] = fmean(by_seed[seed].value for by_seed in by_score)
            values.append(float(quantity(*fixed)))
        if len(values) > 1:  # the variance of a mean over seeds, with its degrees of freedom
            between.append((variance(values) / len(values), len(values) - 1))
    return _with_error(estimate, between)


def _with_error(estimate: statistics.Estimate, between: list[tuple[float, int]]) -> Found:
    """Add the variances over samples and between seeds.

    Seeds are not resampled: of two or three a bootstrap would see too little. With few seeds and many samples, a t-test
    with samples - 1 degrees of freedom is wrong by a factor of 3 to 6.
    """
    se, seeds = estimate.se, sum(part for part, _ in between)
    samples = len(estimate.ids_N)
    found: Found = {
        "ours": estimate.value,
        "se": None if se is None else (se**2 + seeds) ** 0.5,
        "freedom": statistics.freedom([(se**2 if se else 0.0, samples - 1), *between]),
        "samples": samples,
    }
    return found | ({"se_samples": se, "sd_seeds": seeds**0.5} if seeds else {})


def evidence_of_better(detail: Found) -> Evidence:
    """Return whether a difference is to the better."""
    return HOLDS if (detail["ours"] > 0) == detail["higher_is_better"] else DOES_NOT, detail["p"]


def evidence_of_between(detail: Found, lowest: float, highest: float) -> Evidence:
    """Return whether a difference lies between two bounds: p is below .05 where its 95 % interval has none of them."""
    bounds = [bound for bound in (lowest, highest) if math.isfinite(bound)]
    p_values = [statistics.p_value(detail["ours"] - bound, detail["se"], detail["freedom"]) for bound in bounds]
    known = [p for p in p_values if p is not None]
    p = max(known) if len(known) == len(bounds) else None
    return HOLDS if lowest < detail["ours"] < highest else DOES_NOT, p


def all_hold(parts: Sequence[Evidence]) -> Evidence:
    """Return the evidence of several statements together: all must hold, and one that does not refutes."""
    known = [p for _, p in parts if p is not None]
    if len(known) < len(parts):
        return UNDECIDED, None
    against = [p for verdict, p in parts if verdict == DOES_NOT and p is not None]
    # That all hold is as sure as the least sure of them. That one does not has several chances (Bonferroni).
    return (DOES_NOT, min(1.0, len(parts) * min(against))) if against else (HOLDS, max(known))


def decide(evidence: Evidence) -> str:
    """Return the verdict that evidence gives. p is None for a single sample, which has no error."""
    verdict, p = evidence
    return UNDECIDED if p is None or p >= LEVEL else verdict


def interval(detail: Found) -> tuple[float, float]:
    """Return the 95 % interval of a number with its error and degrees of freedom."""
    return statistics.interval(detail["ours"], detail["se"], detail["freedom"])


def _headline_columns(table: int) -> tuple[str, ...]:
    """Return the columns whose mean a comparison is about: Table 1 has no average of its own."""
    return paper.columns(1) if table == 1 else ("average",)


def headline_scores(table: int, results: Results, kind: str | None = None) -> list[Score]:
    """Return the scores of `kind`, by default the table's first, in the columns that a comparison is about."""
    kind = paper.kinds(table)[0] if kind is None else kind
    return [results.score(table, column, kind) for column in _headline_columns(table)]


def signed(value: float, metric: str, se: float | None = None) -> str:
    error = "" if se is None else f" ± {se:.2f}"
    # A minus sign instead of a hyphen: claims are read in Markdown and on the report's page.
    return f"{LABELS[metric]} {value:+.2f}{error} {UNITS[metric]}".replace("-", "−")
