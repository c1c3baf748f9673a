"""The delta method against scipy and against drawing the samples again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from collagan_dist.reproduce import statistics
from tests.reproduce.scored import SCORED_AT, random_counts


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(5)


def test_a_paired_difference_is_scipys(generator: np.random.Generator) -> None:
    one = generator.normal(27, 3, 300)
    other = one + generator.normal(0.05, 0.4, 300)
    ids = np.arange(300)
    gap = statistics.difference(statistics.mean(one, ids), statistics.mean(other, ids))
    expected = stats.ttest_rel(one, other)
    assert gap.value == pytest.approx((one - other).mean(), abs=1e-12)
    assert statistics.p_value(gap.value, gap.se, 299) == pytest.approx(expected.pvalue, rel=1e-9)
    unpaired = stats.ttest_ind(one, other).pvalue
    assert unpaired > 10 * expected.pvalue  # the pairing is what finds so small a difference


def test_only_common_samples_are_compared(generator: np.random.Generator) -> None:
    """One model lacks a damaged sample: the others are matched by number."""
    one, other = generator.normal(0, 1, 50), generator.normal(0, 1, 50)
    ids, kept = np.arange(50), np.delete(np.arange(50), 7)
    gap = statistics.difference(statistics.mean(one, ids), statistics.mean(other[kept], kept))
    assert np.array_equal(gap.ids_N, kept)
    assert gap.influence_N == pytest.approx(one[kept] - one.mean() - (other[kept] - other[kept].mean()))


def drawn_again(values: list[np.ndarray], compute: object, rounds: int = 3000) -> np.ndarray:
    """The naive bootstrap of a function of arrays whose rows are samples."""
    generator = np.random.default_rng(6)
    n = len(values[0])
    return np.array([compute(*(v[at] for v in values)) for at in generator.integers(0, n, (rounds, n))])  # type: ignore[operator]


def pooled(counts: np.ndarray) -> float:
    both, size = 2 * counts[:, SCORED_AT, 0].sum(0), counts[:, SCORED_AT, 1:].sum((0, 2))
    return float((both / size).mean())


def dice(counts: np.ndarray) -> statistics.Estimate:
    ids = np.arange(len(counts))
    parts = [statistics.ratio(2 * counts[:, c, 0], counts[:, c, 1] + counts[:, c, 2], ids) for c in SCORED_AT]
    return statistics.average([part for part in parts if part is not None])


def test_pooled_dice(generator: np.random.Generator) -> None:
    counts = random_counts(generator, 200, 0.8)
    estimate = dice(counts)
    assert estimate.value == pytest.approx(pooled(counts), rel=1e-12)
    assert estimate.se == pytest.approx(drawn_again([counts], pooled).std(), rel=0.06)


def test_dice_differences_by_both_ways(generator: np.random.Generator) -> None:
    one, other = random_counts(generator, 150, 0.82), random_counts(generator, 150, 0.8)
    gap = statistics.difference(dice(one), dice(other))
    naive = drawn_again([one, other], lambda a, b: pooled(a) - pooled(b))
    assert gap.se == pytest.approx(naive.std(), rel=0.06)

    def terms(counts: np.ndarray) -> np.ndarray:
        return np.stack([2 * counts[:, SCORED_AT, 0], counts[:, SCORED_AT, 1:].sum(-1)], axis=-1)

    interval = statistics.bootstrap_dice(terms(one), terms(other))
    assert interval == pytest.approx(np.percentile(naive, [2.5, 97.5]), abs=0.15 * naive.std())


def test_relative_change(generator: np.random.Generator) -> None:
    """Table 3's -27.7 %, with its interval."""
    before = generator.gamma(4, 0.6, 400)
    now = 0.72 * before + generator.gamma(2, 0.05, 400)
    ids = np.arange(400)
    change = statistics.relative_change(statistics.mean(now, ids), statistics.mean(before, ids))
    assert change.value == pytest.approx(now.mean() / before.mean() - 1)
    assert change.se == pytest.approx(drawn_again([now, before], lambda a, b: a.mean() / b.mean() - 1).std(), rel=0.06)


def test_a_class_that_nowhere_is_has_no_dice() -> None:
    assert statistics.ratio(np.zeros(4), np.zeros(4), np.arange(4)) is None


def test_few_seeds_leave_few_degrees_of_freedom(generator: np.random.Generator) -> None:
    """Two sources are Welch's test; a dominant one of three seeds leaves its two."""
    one, other = generator.normal(0, 1, 12), generator.normal(0.3, 4, 5)
    parts = [(x.var(ddof=1) / len(x), len(x) - 1) for x in (one, other)]
    se = np.sqrt(sum(variance for variance, _ in parts))
    p = statistics.p_value(one.mean() - other.mean(), se, statistics.freedom(parts))
    assert p == pytest.approx(stats.ttest_ind(one, other, equal_var=False).pvalue, rel=1e-9)
    assert statistics.freedom([(1e-6, 299), (1.0, 2)]) == pytest.approx(2, rel=1e-3)
    assert statistics.freedom([(0.5, 299)]) == 299


def test_stars() -> None:
    assert [statistics.stars(p) for p in (0.2, 0.04, 0.004, 0.0004, None)] == ["", "*", "**", "***", ""]
    assert statistics.rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert statistics.rank_correlation([1, 1, 1], [3, 2, 1]) is None
