"""Numbers with what each sample adds to their error, so that models are compared over the same samples.

A mean, a pooled Dice (a ratio of sums) and an average of several such numbers are all, to first order, a value plus
the mean of one influence a sample (the delta method). Influences add up like the numbers themselves, which gives the
standard error of a difference, of an average over seeds or positions, and of a ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_ROUNDS = 2000  # of a bootstrap
_SEED = 20180923


@dataclass(frozen=True)
class Estimate:
    """`influence_N` belongs to the samples `ids_N`, which rise; its mean is zero."""

    value: float
    influence_N: np.ndarray
    ids_N: np.ndarray

    @property
    def se(self) -> float | None:
        """Standard error over samples; None of fewer than two."""
        n = len(self.influence_N)
        return float(self.influence_N.std(ddof=1) / np.sqrt(n)) if n > 1 else None


def mean(values_N: np.ndarray, ids_N: np.ndarray) -> Estimate:
    """The mean over samples; those without a value (NaN) are left out."""
    known = ~np.isnan(values_N)
    values = values_N[known]
    return Estimate(float(values.mean()), values - values.mean(), ids_N[known])


def ratio(above_N: np.ndarray, below_N: np.ndarray, ids_N: np.ndarray) -> Estimate | None:
    """Sum over sum, as in a pooled Dice; None where there is nothing below."""
    if not below_N.sum():
        return None
    value = float(above_N.sum() / below_N.sum())
    return Estimate(value, (above_N - value * below_N) / below_N.mean(), ids_N)


def combine(parts: Sequence[Estimate], weights: Sequence[float]) -> Estimate:
    """The weighted sum of estimates over the samples that all of them have."""
    ids = parts[0].ids_N
    for part in parts[1:]:
        ids = np.intersect1d(ids, part.ids_N)
    total = np.zeros(len(ids))
    for part, weight in zip(parts, weights, strict=True):
        total += weight * part.influence_N[np.searchsorted(part.ids_N, ids)]
    return Estimate(sum(w * p.value for p, w in zip(parts, weights, strict=True)), total, ids)


def average(parts: Sequence[Estimate]) -> Estimate:
    return combine(parts, [1 / len(parts)] * len(parts))


def difference(one: Estimate, other: Estimate) -> Estimate:
    return combine([one, other], [1.0, -1.0])


def relative_change(to: Estimate, start: Estimate) -> Estimate:
    """to / start - 1 by the delta method."""
    change = combine([to, start], [1 / start.value, -to.value / start.value**2])
    return Estimate(to.value / start.value - 1, change.influence_N, change.ids_N)


def freedom(parts: Sequence[tuple[float, int]]) -> float:
    """Degrees of freedom of a sum of estimated variances, each with its own (Welch and Satterthwaite)."""
    known = [(variance, degrees) for variance, degrees in parts if variance > 0 and degrees > 0]
    if not known:
        return float(parts[0][1])
    return sum(v for v, _ in known) ** 2 / sum(v**2 / d for v, d in known)


def p_value(value: float, se: float | None, degrees: float) -> float | None:
    """Two-sided, of a mean that differs from zero (Student's t)."""
    from scipy.stats import t

    if se is None:
        return None
    if se == 0:  # every sample differs by the same
        return float(value == 0)
    return float(2 * t.sf(abs(value) / se, degrees))


def half_width(se: float, degrees: float) -> float:
    """Of the 95 % interval of a mean (Student's t)."""
    from scipy.stats import t

    return float(t.ppf(0.975, degrees) * se)


def stars(p: float | None) -> str:
    return "" if p is None else "***" if p < 0.001 else "**" if p < 0.01 else "*" if p < 0.05 else ""


def bootstrap_dice(one_NC2: np.ndarray, other_NC2: np.ndarray) -> tuple[float, float]:
    """95 % interval of the difference of two pooled mean Dice over the same samples.

    (N, C, 2) arrays: twice the pixels in both, and the sum of the predicted and the true ones, a class. Samples are
    drawn again with replacement, the same for both.
    """
    n = len(one_NC2)
    generator = np.random.default_rng(_SEED)
    found = np.empty(_ROUNDS)
    for number in range(_ROUNDS):
        times = np.bincount(generator.integers(0, n, n), minlength=n).astype(np.float64)
        found[number] = _mean_dice(times, one_NC2) - _mean_dice(times, other_NC2)
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)


def _mean_dice(times_N: np.ndarray, counts_NC2: np.ndarray) -> float:
    sums_C2 = np.tensordot(times_N, counts_NC2, axes=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.nanmean(sums_C2[:, 0] / sums_C2[:, 1]))


def rank_correlation(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Spearman's; None where one of them does not vary."""
    from scipy.stats import spearmanr

    if len(set(ours)) < 2 or len(set(theirs)) < 2:
        return None
    return float(spearmanr(ours, theirs).statistic)
