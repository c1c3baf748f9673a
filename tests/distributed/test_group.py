import torch

from collagan_dist.distributed.group import Group
from collagan_dist.types import World
from tests.distributed.two_ranks import two_ranks


def test_collectives():
    expected = {
        "mean": [1.5, 4.0],
        "and": [True, False, False],
        "deferred": [[0.0, 0.0], [3.0, 20.0], [0.0, 0.0]],  # each call gives the sums of the one before
        "floats": [0.5, 1.5],
        "objects": [{"rank": 0}, {"rank": 1}],
        "broadcast": "from rank 0",
        "tensors": [[0.0, 0.0], [0]],
        "on_rank0": "by rank 0",
    }
    assert [rank["collectives"] for rank in two_ranks()] == [expected] * 2


def test_an_error_of_rank_0_reaches_every_rank():
    first, second = (rank["errors"] for rank in two_ranks())
    assert first["data"] == second["data"] == "DataError: no such shard"
    assert first["unexpected"] == "OSError: no such file"
    assert second["unexpected"] == "ClusterError: rank 0 failed: OSError('no such file')"


def test_only_the_loss_of_a_peer_is_a_cluster_error():
    for number, rank in enumerate(two_ranks()):
        assert rank["errors"]["own"] == "RuntimeError: an error of this rank's own"
        expected = f"ClusterError: rank {number}: another rank is gone or hangs, in a collective; see its message"
        assert rank["errors"]["peer"].startswith(expected)


def test_a_rank_that_fails_tells_the_others_why():
    text = two_ranks()[0]["lost_rank"]
    assert text.startswith("rank 0: another rank is gone or hangs, in the end; rank 1 on ")
    assert "ended: ValueError: a fault of this rank's own" in text


def test_one_rank_needs_no_process_group():
    with Group(World(), torch.device("cpu")) as group:
        assert group.all_reduce_mean(torch.tensor(3.0)).item() == 3.0 and group.all_gather("x") == ["x"]
        assert group.all_reduce_sum_deferred(2.0) == [2.0] and group.all_gather_float(2.0) == [2.0]
        assert group.on_rank0(lambda: 5) == 5 and group.broadcast("x") == "x"
        assert group.all_reduce_and(torch.tensor(True)) and not group.all_reduce_and(torch.tensor(False))
        group.barrier("nothing")
