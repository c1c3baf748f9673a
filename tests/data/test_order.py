"""Order: permutations, exact epochs, the same global batches for every world size."""

from __future__ import annotations

import numpy as np
import pytest

from collagan_dist.contract import World
from collagan_dist.data import order
from collagan_dist.errors import ConfigError, DataError


@pytest.mark.parametrize("samples", [1, 2, 3, 5, 16, 17, 100, 1023, 4097])
def test_every_epoch_shows_every_sample_once(samples: int) -> None:
    numbers, epochs = order.sample_at(np.arange(4 * samples), samples, seed=7)
    for epoch in range(4):
        assert sorted(numbers[epochs == epoch]) == list(range(samples))


def test_epochs_and_seeds_differ_and_repeat() -> None:
    first, _ = order.sample_at(np.arange(2000), 1000, seed=1)
    again, _ = order.sample_at(np.arange(2000), 1000, seed=1)
    other, _ = order.sample_at(np.arange(1000), 1000, seed=2)
    assert (first == again).all()
    assert (first[:1000] == first[1000:]).mean() < 0.01 and (first[:1000] == other).mean() < 0.01


def test_order_looks_random() -> None:
    """Neighbours in an epoch are no neighbours in the data set, and every region comes early and late alike."""
    numbers, _ = order.sample_at(np.arange(100_000), 100_000, seed=3)
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.02
    early = np.bincount(numbers[:10_000] // 10_000, minlength=10)
    assert abs(early - 1000).max() < 5 * np.sqrt(1000)


def test_any_position_of_a_billion_at_once() -> None:
    numbers, epochs = order.sample_at(np.array([0, 10**9, 7 * 10**9 + 123]), 10**9, seed=1)
    assert (numbers >= 0).all() and (numbers < 10**9).all() and epochs.tolist() == [0, 1, 7]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 12])
def test_ranks_share_the_same_global_batch(size: int) -> None:
    for step in (0, 1, 999):
        whole = order.positions(step, 24, World())
        parts = [order.positions(step, 24, World(rank=r, size=size)) for r in range(size)]
        assert (np.concatenate(parts) == whole).all()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 70])
def test_evaluation_shares_have_no_copies(size: int) -> None:
    parts = [order.shares(64, World(rank=r, size=size)) for r in range(size)]
    assert sorted(np.concatenate(parts)) == list(range(64))


def test_steps_cover_the_epochs() -> None:
    assert order.total_steps(162_770, 64, 20) == -(-20 * 162_770 // 64)


def test_batches_that_ranks_cannot_share_are_refused_with_the_numbers() -> None:
    with pytest.raises(ConfigError, match=r"64 samples cannot be shared evenly by 3 ranks; set it to 63 or 66"):
        order.check_batch(1000, 64, World(size=3))
    with pytest.raises(ConfigError, match=r"set schedule.batch to 64 or more"):
        order.check_batch(1000, 32, World(size=32))
    with pytest.raises(DataError, match=r"10 samples, one global batch needs 64"):
        order.check_batch(10, 64, World())
