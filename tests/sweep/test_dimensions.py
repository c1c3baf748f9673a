import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.stats import kstest

from collagan_dist.sweep.dimensions import Choice, Dimension, Interval, Simplex

ends = st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)).filter(lambda pair: pair[0] < pair[1])
plain = st.one_of(st.none(), st.text(max_size=3), st.integers(-9, 9), st.lists(st.floats(0, 1), max_size=2))


def apart(values: list[object]) -> bool:
    return all(one != other for one, other in itertools.combinations(values, 2))


dimensions: st.SearchStrategy[Dimension] = st.one_of(
    st.builds(lambda pair, log: Interval("a", *pair, log=log), ends, st.booleans()),
    st.builds(lambda low, more: Interval("a", low, low + more, integer=True), st.integers(-99, 99), st.integers(1, 99)),
    st.builds(lambda values: Choice("a", tuple(values)), st.lists(plain, min_size=2, max_size=5).filter(apart)),
    st.builds(lambda n, total: Simplex(tuple("abcdef"[:n]), total), st.integers(2, 6), st.floats(1e-3, 1e3)),
)


STRATEGIES = {
    CategoricalDistribution: lambda one: st.sampled_from(one.choices),
    IntDistribution: lambda one: st.integers(one.low, one.high),
    FloatDistribution: lambda one: st.floats(one.low, one.high),
}


def drawn(dimension: Dimension, data: st.DataObject) -> dict[str, object]:
    return {name: data.draw(STRATEGIES[type(one)](one)) for name, one in dimension.distributions().items()}


@given(dimensions, st.data())
def test_parameters_are_recovered_from_values(dimension, data):
    """Through JSON, as trial.json keeps them: the same draw, so the same values again."""
    values = json.loads(json.dumps(dimension.from_params(drawn(dimension, data))))
    again = dimension.to_params(values)
    assert again is not None and set(again) == set(dimension.distributions())
    for name, one in dimension.distributions().items():
        assert one._contains(one.to_internal_repr(again[name]))  # or a study would not take it
    same = dimension.from_params(again)
    if isinstance(dimension, Simplex):
        assert same == pytest.approx(values, abs=1e-6 * dimension.total)
        assert math.isclose(sum(values.values()), dimension.total, rel_tol=1e-9) and min(values.values()) >= 0
        assert tuple(values) == dimension.keys
    else:
        assert same == values and type(same["a"]) is type(values["a"])


@pytest.mark.parametrize("count", [2, 3, 5])
def test_simplex_draws_are_uniform(count):
    """As numpy's Dirichlet(1, ..., 1): each value, each difference and each share of two by Kolmogorov and Smirnov; covariances."""
    simplex, draws = Simplex(tuple("abcde"[:count]), 2.0), 4000
    rng = np.random.default_rng(3)
    params = rng.random((draws, count - 1))
    rows = [simplex.from_params(dict(zip(simplex.distributions(), map(float, row), strict=True))) for row in params]
    mine = np.array([[row[key] for key in simplex.keys] for row in rows]) / 2.0
    other = rng.dirichlet(np.ones(count), 20_000)
    for i in range(count):
        assert kstest(mine[:, i], "beta", (1, count - 1)).pvalue > 1e-4, i
    for i, j in itertools.combinations(range(count), 2):
        assert kstest(mine[:, i] - mine[:, j], other[:, i] - other[:, j]).pvalue > 1e-4, (i, j)
        assert kstest(mine[:, i] / (mine[:, i] + mine[:, j]), "uniform").pvalue > 1e-4, (i, j)
    assert np.abs(np.cov(mine.T) - np.cov(other.T)).max() < 0.008


@given(dimensions, st.data())
def test_perturbed_values_stay_inside_and_differ(dimension, data):
    """The space's, of the same kind of number, by the generator alone. Away from the ends every move is one; from an end, some are."""
    values = dimension.from_params(drawn(dimension, data))
    moves, again = ([dimension.perturbed(values, np.random.default_rng(seed)) for seed in range(12)] for _ in range(2))
    assert moves == again
    for move in moves:
        assert set(move) == set(dimension.keys) and dimension.to_params(move) is not None
    if isinstance(dimension, Simplex):
        if min(values.values()) > 1e-3 * dimension.total:
            assert all(max(abs(move[key] - values[key]) for key in values) > 1e-4 * dimension.total for move in moves)
        return
    assert any(move != values for move in moves)
    if isinstance(dimension, Choice):
        place = dimension.choices.index(values["a"])
        assert all(abs(dimension.choices.index(move["a"]) - place) <= 1 for move in moves)
        inside = 0 < place < len(dimension.choices) - 1
    else:
        assert all(type(move["a"]) is type(values["a"]) for move in moves)
        inside = dimension.low < values["a"] < dimension.high
    assert not inside or all(move != values for move in moves)


def test_perturbation_is_a_factor_of_1_2():
    """Or, on a linear scale, a tenth of the range; at least one for whole numbers."""
    rngs = [np.random.default_rng(seed) for seed in range(20)]
    log, line = Interval("a", 1e-5, 1.0, log=True), Interval("a", 0.0, 2.0)
    many, few = Interval("a", 0, 100, integer=True), Interval("a", 1, 3, integer=True)
    assert {round(log.perturbed({"a": 0.01}, rng)["a"], 9) for rng in rngs} == {0.012, round(0.01 / 1.2, 9)}
    assert {round(line.perturbed({"a": 1.0}, rng)["a"], 9) for rng in rngs} == {0.8, 1.2}
    assert {many.perturbed({"a": 50}, rng)["a"] for rng in rngs} == {40, 60}
    assert {few.perturbed({"a": 2}, rng)["a"] for rng in rngs} == {1, 3}
    for one in (log, line):  # a starting point may be written without a point
        moves = [[one.perturbed({"a": value}, np.random.default_rng(n)) for n in range(9)] for value in (1, 1.0)]
        assert moves[0] == moves[1]


@pytest.mark.parametrize(
    ("dimension", "values"),
    [
        (Interval("a", 1.0, 2.0), {"a": 0.9}), (Interval("a", 1.0, 2.0, log=True), {"a": 2.1}),
        (Interval("a", 1, 5, integer=True), {"a": 2.5}), (Choice("a", ("x", "y")), {"a": "z"}),
        (Choice("a", (1, 2)), {"a": None}), (Simplex(("a", "b"), 1.0), {"a": 0.6, "b": 0.5}),
        (Simplex(("a", "b", "c"), 1.0), {"a": 1.2, "b": -0.1, "c": -0.1}),
    ],
)  # fmt: skip
def test_values_outside_have_no_parameters(dimension, values):
    """No draw gives them; the nearest inside, which no choice is, stands for them in importance, and a move leads inside."""
    assert dimension.to_params(values) is None
    if isinstance(dimension, Choice):
        assert dimension.clamped(values) is None
        return
    nearest, around = dimension.clamped(values)
    assert all(one._contains(one.to_internal_repr(nearest[name])) for name, one in around.items())
    assert set(nearest) == set(dimension.keys)
    if isinstance(dimension, Interval):
        assert dimension.to_params(dimension.perturbed(values, np.random.default_rng(0))) is not None


def test_perturbation_restores_the_total_of_a_simplex():
    one = Simplex(("a", "b"), 1.0)
    assert one.to_params(one.perturbed({"a": 3.0, "b": 1.0}, np.random.default_rng(0))) is not None
    assert one.perturbed({"a": 0.0, "b": 0.0}, np.random.default_rng(0)) == {"a": 0.0, "b": 0.0}  # nothing to share out


@pytest.mark.parametrize("seed", range(4))
def test_a_float_of_the_configuration_equals_the_integer_of_the_space(seed):
    """A configuration has 100.0 where the file says 100: the same choice, drawn, told and moved."""
    choice, whole = Choice("a", (50, 100, 200)), Interval("a", 50, 200, integer=True)
    assert choice.to_params({"a": 100.0}) == choice.to_params({"a": 100}) == {"a": "100"}
    assert choice.clamped({"a": 100.0})[0] == {"a": "100"}
    assert choice.perturbed({"a": 100.0}, np.random.default_rng(seed))["a"] in (50, 200)
    assert whole.to_params({"a": 100.0}) == {"a": 100}
    assert set(whole.perturbed({"a": 100.0}, np.random.default_rng(seed)).values()) <= {85, 115}


@given(dimensions)
def test_corners_are_inside_the_space(dimension):
    found = list(dimension.corners())
    assert all(dimension.to_params(values) is not None for values in found)
    expected = {Interval: 2, Choice: len(getattr(dimension, "choices", ())), Simplex: len(dimension.keys)}
    assert len(found) == expected[type(dimension)] and apart(found)
    assert set(dimension.describe()) == set(dimension.keys)
