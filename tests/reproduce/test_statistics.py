import numpy as np
import pytest
from scipy import stats

from collagan_dist.reproduce import statistics
from tests.reproduce.evaluated import SCORED_AT, random_counts

# Both sides have the error of 1,000 resampled test sets: each 2 %, and 4 % is two of them.
MONTE_CARLO = 0.08


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(5)


def mean(values, ids=None):
    return statistics.mean(values, np.arange(len(values)) if ids is None else ids)


def difference(one, other):
    return statistics.combine(lambda a, b: a - b, one, other)


def dice(counts):
    ids = np.arange(len(counts))
    both, size = 2 * counts[..., 0], counts[..., 1] + counts[..., 2]
    return statistics.average([statistics.ratio(both[:, c], size[:, c], ids) for c in SCORED_AT])


def pooled(counts, axis=0):
    """The mean over classes of the Dice pooled over samples, which are on `axis`."""
    sums = counts[..., SCORED_AT, :].sum(axis)
    return (2 * sums[..., 0] / (sums[..., 1] + sums[..., 2])).mean(-1)


@pytest.mark.parametrize("samples", [2, 5, 40, 500])
def test_the_error_of_a_mean_is_the_textbooks(generator, samples):
    values = generator.normal(27, 3, samples)
    found = mean(values)
    assert found.value == pytest.approx(values.mean())
    assert found.se == pytest.approx(stats.sem(values), rel=MONTE_CARLO)
    assert mean(values[:1]).se is None


def test_samples_are_paired_by_their_ids(generator):
    """One model lacks a damaged sample, and has the others in another order."""
    values = generator.normal(10, 3, 50)
    order = generator.permutation(np.delete(np.arange(50), 7))
    found = difference(mean(values), mean(values[order] + 1, order))
    assert sorted(found.ids_N) == sorted(order) and found.se < 0.1 * stats.sem(values)
    known = values.copy()
    known[7] = np.nan  # a sample without a value is left out
    assert mean(known).value == pytest.approx(np.delete(values, 7).mean()) and 7 not in mean(known).ids_N


@pytest.mark.parametrize(("samples", "quality"), [(150, 0.8), (40, 0.6)])
def test_pooled_dice_has_scipys_error(generator, samples, quality):
    """Of one model and of a difference, whose interval is scipy's too."""
    one, other = random_counts(generator, samples, quality + 0.02), random_counts(generator, samples, quality)
    for found, statistic in (
        (dice(one), lambda at, axis: pooled(one[at], axis)),
        (difference(dice(one), dice(other)), lambda at, axis: pooled(one[at], axis) - pooled(other[at], axis)),
    ):
        theirs = stats.bootstrap((np.arange(samples),), lambda at, axis=-1, f=statistic: f(at, at.ndim - 1),
                                 n_resamples=1000, method="percentile", rng=np.random.default_rng(6))  # fmt: skip
        assert found.value == pytest.approx(statistic(np.arange(samples), 0), rel=1e-12)
        assert found.se == pytest.approx(theirs.standard_error, rel=MONTE_CARLO)
        interval = statistics.interval(found.value, found.se, samples - 1)
        assert interval == pytest.approx(tuple(theirs.confidence_interval), abs=0.3 * found.se)


def test_a_rare_class_has_an_error_and_an_absent_one_no_number():
    """Drawn with replacement, 37 % of the test sets would lack the one sample that shows the class."""
    both, size = np.zeros(30), np.zeros(30)
    assert statistics.ratio(both, size, np.arange(30)) is None
    both[3], size[3] = 8, 10
    found = statistics.ratio(both, size, np.arange(30))
    assert found.value == 0.8 and np.isfinite(found.resampled_B).all()
    assert statistics.mean(np.full(3, np.nan), np.arange(3)) is None


def test_few_seeds_leave_few_degrees_of_freedom(generator):
    """Two sources are Welch's test; a dominant one of three seeds leaves its two."""
    one, other = generator.normal(0, 1, 12), generator.normal(0.3, 4, 5)
    parts = [(x.var(ddof=1) / len(x), len(x) - 1) for x in (one, other)]
    se = sum(variance for variance, _ in parts) ** 0.5
    p = statistics.p_value(one.mean() - other.mean(), se, statistics.freedom(parts))
    expected = stats.ttest_ind(one, other, equal_var=False)
    assert p == pytest.approx(expected.pvalue, rel=1e-9)
    interval = statistics.interval(one.mean() - other.mean(), se, statistics.freedom(parts))
    assert interval == pytest.approx(tuple(expected.confidence_interval()), rel=1e-9)
    assert statistics.freedom([(1e-6, 299), (1.0, 2)]) == pytest.approx(2, rel=1e-3)
    assert statistics.freedom([(0.5, 299)]) == 299


def test_p_values_stars_and_rank_correlation():
    assert statistics.p_value(0.1, None, 3) is None and statistics.p_value(0.1, 0.0, 3) == 0.0
    assert statistics.p_value(0.0, 0.0, 3) == 1.0
    assert [statistics.stars(p) for p in (0.2, 0.04, 0.004, 0.0004, None)] == ["", "*", "**", "***", ""]
    assert statistics.rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert statistics.rank_correlation([1, 1, 1], [3, 2, 1]) is None
