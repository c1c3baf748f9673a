import itertools
import re

import numpy as np
import pytest

from collagan_dist.data.loading import order
from collagan_dist.data.loading.order import Order
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.types import World


def shapes(count: int) -> list[Order]:
    """Splits and batches of many shapes: windows that hold them whole and windows that do not."""
    draw = np.random.default_rng(5)
    found = []
    while len(found) < count:
        samples, batch = int(draw.integers(1, 700)), int(draw.integers(2, 97))
        found.append(Order(samples, batch, int(draw.integers(9)), int(draw.integers(1, 80)), int(draw.integers(1, 12))))
    return found


def test_every_epoch_shows_every_sample_once():
    for one in shapes(150):
        numbers, epochs = one.at(np.arange(3 * one.samples))
        for epoch in range(3):
            assert sorted(numbers[epochs == epoch]) == list(range(one.samples)), one
    assert sum(one.fully_shuffled for one in shapes(150)) in range(20, 130)


def test_ranks_share_the_same_global_batch_in_equal_steps():
    for one in shapes(8):
        for size in (n for n in range(1, one.batch + 1) if one.batch % n == 0):
            world = [World(rank=rank, size=size) for rank in range(size)]
            for step in (1, 999):
                shares = [one.step(step, w)[0] for w in world]
                assert {len(share) for share in shares} == {one.batch // size}
                assert (np.concatenate(shares) == one.step(step, World())[0]).all(), one


def test_a_position_does_not_depend_on_what_is_asked_with_it():
    for one in shapes(40):
        whole = one.at(np.arange(500))[0]
        assert [int(one.at(np.array([p]))[0][0]) for p in range(0, 500, 17)] == whole[::17].tolist()


def test_many_steps_at_once_are_the_same_steps():
    for one in shapes(20):
        world = World(rank=1, size=2) if one.batch % 2 == 0 else World()
        many = list(one.steps(3, 250, world))
        assert len(many) == 247
        for number in range(3, 250, 31):
            assert np.array_equal(many[number - 3], one.step(number, world))


def test_a_rank_reads_from_few_shards_at_a_time_and_most_shards_once():
    one = Order(samples=200_300, batch=64, seed=4, shard=500, window=16)
    assert not one.fully_shuffled and one.streams == 16
    for size in (1, 16):
        shards = [one.step(step, World(rank=size // 2, size=size))[0] // one.shard for step in range(200, 1000)]
        # A rank owns 16 / size streams; each stands in one shard, or in two when it goes over to the next. Where epochs
        # meet within a batch, slots and streams shift against each other by less than one stream.
        assert max(len(set(now)) for now in shards) <= 2 * (16 // size + 1)
        changes = sum(len(set(now) - set(before)) for before, now in itertools.pairwise(shards))
        read = sum(len(now) for now in shards)
        assert changes * one.shard <= 1.2 * read + one.shard * (16 // size + 1)


def test_epochs_and_seeds_differ_and_repeat():
    for window in (1000, 4):
        one = Order(1000, 20, 1, 50, window)
        first = one.at(np.arange(2000))[0]
        assert (first == one.at(np.arange(2000))[0]).all()
        other = Order(1000, 20, 2, 50, window).at(np.arange(1000))[0]
        assert (first[:1000] == first[1000:]).mean() < 0.01 and (first[:1000] == other).mean() < 0.01


def test_a_full_shuffle_looks_random():
    """Neighbours in an epoch are no neighbours in the data set, and every region comes early and late alike."""
    numbers, _ = Order(100_000, 64, 3, 1000, 100).at(np.arange(100_000))
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.02
    early = np.bincount(numbers[:10_000] // 10_000, minlength=10)
    assert abs(early - 1000).max() < 5 * np.sqrt(1000)


def test_a_shuffle_through_streams_mixes_every_batch():
    one = Order(100_000, 64, 3, 1000, 8)
    batches = np.stack([one.step(step, World())[0] for step in range(100_000 // 64)])
    shards = np.sort(batches // 1000, axis=1)
    distinct = 1 + (np.diff(shards, axis=1) > 0).sum(axis=1)
    assert distinct.min() >= 7 and distinct.max() <= 16
    means = batches.mean(axis=1)  # over 8 random shards: as spread as the means of 8 samples at least
    assert abs(means.mean() - 50_000) < 500 and means.std() < 1.2 * 100_000 / np.sqrt(12 * 8)
    follows = one.at(np.arange(100_000))[0].reshape(-1, 8)[:, :2]  # neighbours of one stream
    inside = follows[follows[:, 0] // 1000 == follows[:, 1] // 1000] % 1000
    assert abs(np.corrcoef(inside.T)[0, 1]) < 0.05


@pytest.mark.parametrize("window", [10**6, 64])
def test_any_position_of_a_billion_at_once(window):
    one = Order(10**9, 10**4 * 8, 1, 2048, window)
    numbers, epochs = one.at(np.array([0, 10**9, 7 * 10**9 + 123]))
    assert (numbers >= 0).all() and (numbers < 10**9).all() and epochs.tolist() == [0, 1, 7]
    share, _ = one.step(10**6, World(rank=9_999, size=10_000))
    assert len(set(share.tolist())) == 8


@pytest.mark.parametrize("size", [1, 2, 3, 5, 70])
def test_evaluation_shares_have_no_copies(size):
    parts = [order.rank_samples(64, World(rank=r, size=size)) for r in range(size)]
    assert sorted(np.concatenate(parts)) == list(range(64))


def test_batches_that_ranks_cannot_share_are_refused_with_the_numbers():
    with pytest.raises(ConfigError, match=r"64 samples cannot be shared evenly by 3 ranks; set it to 63 or 66"):
        order.check_batch(1000, 64, World(size=3))
    with pytest.raises(ConfigError, match=r"set schedule.batch to 64 or more"):
        order.check_batch(1000, 32, World(size=32))
    with pytest.raises(DataError, match=r"10 samples, one global batch needs 64; set schedule.batch to at most 10$"):
        order.check_batch(10, 64, World())


@pytest.mark.parametrize("samples", [10, 100, 1000])
@pytest.mark.parametrize("ranks", [1, 3, 40])
@pytest.mark.parametrize("batch", [2, 32, 64, 960])
def test_a_batch_that_an_error_names_is_accepted(samples, ranks, batch):
    try:
        order.check_batch(samples, batch, World(size=ranks))
    except (ConfigError, DataError) as error:
        advice = str(error).rpartition("; ")[2]
        named = [int(number) for number in re.findall(r"\d+", advice)]
        assert named or (advice == "start fewer ranks" and samples < 2 * ranks)
        for other in named:
            order.check_batch(samples, other, World(size=ranks))
