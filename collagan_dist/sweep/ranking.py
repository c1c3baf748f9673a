"""The order of trials by several metrics and by how far they break constraints: constrained domination (Deb 2002).

Pure functions of numbers. Larger is better in every metric, as `SweepPlan` gives them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def order(points: Sequence[Sequence[float]], violations: Sequence[float]) -> list[int]:
    """Return the indices of `points`, best first. A violation of 0 keeps all constraints.

    Smaller violations come first. Among equal ones the order is by Pareto rank, then by crowding distance (NSGA-II), then by the
    first metric, then by index. The best by the first metric of all that keep the constraints is therefore the first of all.
    """
    found: list[int] = []
    for violation in sorted(set(violations)):
        group = [index for index, one in enumerate(violations) if one == violation]
        # Without a number there is nothing to compare.
        found += group if violation == math.inf else _by_domination(points, group)
    return found


def pareto_ranks(points: np.ndarray) -> np.ndarray:
    """Return the rank of each of (n, metrics) points: 0 where none dominates it, 1 where those of rank 0 alone do, and so on."""
    at_least, more = points[:, None] >= points[None], points[:, None] > points[None]
    dominates: np.ndarray = np.logical_and(at_least.all(axis=2), more.any(axis=2))
    ranks, above = np.full(len(points), -1), dominates.sum(axis=0)
    for rank in range(len(points)):
        front = (ranks < 0) & (above == 0)
        ranks[front] = rank
        above = above - dominates[front].sum(axis=0)
    return ranks


def crowding_distances(front: np.ndarray) -> np.ndarray:
    """Return how far each of (n, metrics) points is from its neighbours, infinite at either end of a metric."""
    distances = np.zeros(len(front))
    for values in front.T:
        low, high = values.min(), values.max()
        distances[(values == low) | (values == high)] = math.inf
        if high > low:
            at = np.argsort(values, kind="stable")
            distances[at[1:-1]] += (values[at[2:]] - values[at[:-2]]) / (high - low)
    return distances


def _by_domination(points: Sequence[Sequence[float]], group: list[int]) -> list[int]:
    if len(points[group[0]]) == 1:
        return sorted(group, key=lambda index: -points[index][0])
    array = np.array([points[index] for index in group])
    ranks, crowding = pareto_ranks(array), np.zeros(len(group))
    for rank in range(ranks.max() + 1):
        crowding[ranks == rank] = crowding_distances(array[ranks == rank])
    rows = sorted(range(len(group)), key=lambda row: (ranks[row], -crowding[row], -array[row, 0]))
    return [group[row] for row in rows]
