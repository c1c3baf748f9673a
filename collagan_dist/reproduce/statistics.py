"""Numbers that are measured on test samples, with their errors: one paired bootstrap over samples, and the variance between seeds.

The bootstrap is Rubin's (1981): a resampled test set is a random weight for each sample. All models are measured on the
same resampled test sets, so that what the samples do to both cancels in a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from typing import Any

import numpy as np

# A standard error from this many resampled test sets is itself exact to 1 / sqrt(2 * 1000) = 2 %.
_RESAMPLES = 1000
_SEED = 20180923


@dataclass(frozen=True)
class Estimate:
    """A number, and what it is on each of B resampled test sets. `ids_N` are the samples that it was measured on."""

    value: float
    resampled_B: np.ndarray
    ids_N: np.ndarray

    @property
    def se(self) -> float | None:
        """Standard error over samples; None of fewer than two."""
        n = len(self.ids_N)
        if n < 2:
            return None
        # A mean under these weights has the variance s^2 (n - 1) / (n (n + 1)) where s^2 / n is meant.
        return float(self.resampled_B.std() * np.sqrt((n + 1) / (n - 1)))


def ratio(numerator_N: np.ndarray, denominator_N: np.ndarray, ids_N: np.ndarray) -> Estimate | None:
    """Return sum / sum over samples, as in a pooled Dice; None where the denominators are all 0."""
    if not denominator_N.any():
        return None
    weights_BN = _weights(ids_N.astype(np.int64).tobytes())
    value = float(numerator_N.sum() / denominator_N.sum())
    return Estimate(value, (weights_BN @ numerator_N) / (weights_BN @ denominator_N), ids_N)


def mean(values_N: np.ndarray, ids_N: np.ndarray) -> Estimate | None:
    """Return the mean over the samples that have a value, which is not NaN; None where none has."""
    known_N = ~np.isnan(values_N)
    found = ratio(np.where(known_N, values_N, 0.0), known_N, ids_N)
    return found and replace(found, ids_N=ids_N[known_N])


@lru_cache(maxsize=2)  # the evaluations of one reproduction have the same samples; 160 MB for CelebA's 19,962
def _weights(ids: bytes) -> np.ndarray:
    """Return the (B, N) weights of the samples `ids` (int64) on the resampled test sets."""
    # A function of the sample's id alone: two models stay paired when one of them lacks a damaged sample. Exponential
    # weights are never 0: drawing with replacement would leave some sets without a rare class, such as teeth.
    each = [np.random.default_rng((_SEED, int(i))).exponential(size=_RESAMPLES) for i in np.frombuffer(ids, np.int64)]
    return np.stack(each, axis=1)


def combine(function: Callable[..., Any], *parts: Estimate) -> Estimate:
    """Return a function of numbers, such as their difference, with its error; `function` takes floats and (B,) arrays."""
    ids = reduce(np.intersect1d, (part.ids_N for part in parts))
    return Estimate(float(function(*(p.value for p in parts))), function(*(p.resampled_B for p in parts)), ids)


def average(parts: Sequence[Estimate]) -> Estimate:
    return combine(lambda *values: sum(values) / len(values), *parts)


def freedom(parts: Sequence[tuple[float, int]]) -> float:
    """Return the degrees of freedom of a sum of estimated (variance, degrees of freedom), by Welch and Satterthwaite."""
    known = [(variance, degrees) for variance, degrees in parts if variance > 0 and degrees > 0]
    if not known:
        return float(parts[0][1])
    return sum(v for v, _ in known) ** 2 / sum(v**2 / d for v, d in known)


def p_value(value: float, se: float | None, degrees: float) -> float | None:
    """Return the two-sided p of a number that is 0 by the null hypothesis (Student's t)."""
    from scipy.stats import t  # scipy is imported only when tables are written

    if se is None:
        return None
    if se == 0:  # every sample differs by the same
        return float(value == 0)
    return float(2 * t.sf(abs(value) / se, degrees))


def interval(value: float, se: float, degrees: float) -> tuple[float, float]:
    """Return the 95 % interval (Student's t)."""
    from scipy.stats import t

    half = float(t.ppf(0.975, degrees) * se)
    return value - half, value + half


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for being several (Holm 1979): at any level, one true null is rejected no more often than that."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.minimum(1.0, np.maximum.accumulate(np.array(p_values)[order] * factors))
    return [float(value) for value in adjusted[np.argsort(order, kind="stable")]]


def stars(p: float | None) -> str:
    return "" if p is None else "***" if p < 0.001 else "**" if p < 0.01 else "*" if p < 0.05 else ""


def rank_correlation(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation; None where one side is constant."""
    from scipy.stats import spearmanr

    if len(set(ours)) < 2 or len(set(theirs)) < 2:
        return None
    return float(spearmanr(ours, theirs).statistic)
