from collagan_dist.distributed.stragglers import SlowStreaks
from tests.distributed.two_ranks import two_ranks


def test_streaks():
    """Noise and a fast rank are no stragglers."""
    streaks = SlowStreaks(3, 2.0)
    slow = [0.1, 0.25, 0.1]
    assert [streaks.add(line) for line in (slow, slow, slow, slow, slow)] == [[], [], [(1, 0.1)], [], []]
    assert not streaks.add([0.1, 0.15, 0.1])
    assert [streaks.add(line) for line in (slow, slow, slow)] == [[], [], [(1, 0.1)]]
    two = SlowStreaks(2, 2.0)
    assert not any(two.add(line) for line in [[0.001, 0.005]] * 4)
    assert [two.add([0.1, 0.01]) for _ in range(3)] == [[], [], [(0, 0.01)]]


def test_every_rank_names_the_slow_one():
    """Rank 0 waits for rank 1 inside each lap; only rank 1's own work is long."""
    for rank in two_ranks():
        found = rank["stragglers"]
        assert [len(names) for names in found] == [0, 0, 1, 0, 0] and found[2][0].startswith("rank 1 on ")
