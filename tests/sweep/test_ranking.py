import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collagan_dist.sweep import ranking

some_points = st.integers(1, 3).flatmap(
    lambda metrics: st.lists(st.tuples(*[st.integers(-3, 3)] * metrics), min_size=1, max_size=16)
)


def dominates(one: tuple, other: tuple) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True)) and one != other


def peeled(points: list[tuple]) -> list[int]:
    """Non-dominated sorting by its definition: take away what nothing dominates, again and again."""
    ranks, left, rank = [-1] * len(points), set(range(len(points))), 0
    while left:
        front = {i for i in left if not any(dominates(points[j], points[i]) for j in left)}
        for i in front:
            ranks[i] = rank
        left, rank = left - front, rank + 1
    return ranks


@given(some_points)
@settings(deadline=None, max_examples=80)
def test_pareto_ranks_are_those_of_brute_force(points):
    assert ranking.pareto_ranks(np.array(points, dtype=float)).tolist() == peeled(points)


@given(some_points, st.data())
@settings(deadline=None, max_examples=80)
def test_the_order_is_total_and_respects_domination(points, data):
    """Smaller violations first, then lower ranks; the first keeps the constraints best and leads in the first metric."""
    violations = data.draw(
        st.lists(st.sampled_from([0.0, 0.0, 0.5, math.inf]), min_size=len(points), max_size=len(points))
    )
    order = ranking.order(points, violations)
    assert sorted(order) == list(range(len(points)))
    for before, after in itertools.pairwise(order):
        assert violations[before] <= violations[after]
    for violation in {one for one in violations if one < math.inf}:
        group = [i for i in order if violations[i] == violation]
        ranks = peeled([points[i] for i in group])
        assert ranks == sorted(ranks)
        assert points[group[0]][0] == max(points[i][0] for i in group)
    # No number at all: in the order in which they came.
    assert [i for i in order if violations[i] == math.inf] == [i for i, one in enumerate(violations) if one == math.inf]


def test_crowding_distance():
    """By hand: of (0, 4), (1, 2), (4, 0), (1.5, 1) the neighbours of the second are the first and the last."""
    front = np.array([[0.0, 4.0], [1.0, 2.0], [4.0, 0.0], [1.5, 1.0]])
    assert ranking.crowding_distances(front).tolist() == pytest.approx(
        [math.inf, 1.5 / 4 + 3 / 4, math.inf, 3 / 4 + 2 / 4]
    )
    assert ranking.order(front.tolist(), [0.0] * 4) == [2, 0, 3, 1]
    assert ranking.crowding_distances(np.ones((3, 2))).tolist() == [math.inf] * 3
    assert ranking.order([(1.0, 1.0)] * 3, [0.0] * 3) == [0, 1, 2]


def test_one_metric_is_sorted_by_value():
    assert ranking.order([(1.0,), (3.0,), (3.0,), (2.0,)], [0.0] * 4) == [1, 2, 3, 0]
    assert ranking.order([(1.0,), (3.0,), (9.0,), (8.0,)], [0.0, 0.0, 0.2, 0.1]) == [1, 0, 3, 2]
