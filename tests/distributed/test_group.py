import torch

from collagan_dist.distributed.group import Group
from collagan_dist.types import World
from tests.distributed.two_ranks import two_ranks
from tests.faults.processes import Ranks, as_rank
from tests.runs.run_folders import write_config
from tests.training.small import small


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
        "for long": "by rank 0",
    }
    assert [rank["collectives"] for rank in two_ranks()] == [expected] * 2


def test_an_error_of_rank_0_reaches_every_rank():
    first, second = (rank["errors"] for rank in two_ranks())
    assert first["data"] == second["data"] == "DataError: no such shard"
    assert first["not a message"] == "TypeError: object cannot be sent to other ranks"
    assert second["not a message"].startswith("ClusterError: rank 0 failed: TypeError(")
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


def test_nothing_is_unpickled_in_a_training_of_two_ranks(shards, tmp_path):
    """Nor in its evaluation, with DDP: watched_rank.py ends a rank that unpickles anything."""
    changes = {
        "schedule__steps": 3,
        "schedule__batch": 4,
        "checkpoint__every": 1,
        "evaluate__every": 2,
        "evaluate__samples": 4,
    }
    config, run = write_config(small(shards.folder, **changes), tmp_path / "config"), tmp_path / "run"
    for words in (["train", config, "--run", run], ["evaluate", run, "--set", "evaluate.baselines=4"], ["doctor"]):
        command = ["tests.distributed.watched_rank", *words]
        with Ranks(tmp_path, command, command) as ranks:
            assert ranks.end() == [0, 0], ranks.output()
    with Ranks(tmp_path, command, environments=[as_rank(0, 1, 1) | {"WATCH_TEST": "1"}]) as rank:
        assert rank.end() == [99] and "WATCHED: pickle.loads" in rank.output()


def test_one_rank_needs_no_process_group():
    with Group(World(), torch.device("cpu")) as group:
        assert group.all_reduce_mean(torch.tensor(3.0)).item() == 3.0 and group.all_gather("x") == ["x"]
        assert group.all_reduce_sum_deferred(2.0) == [2.0] and group.all_gather_float(2.0) == [2.0]
        assert group.on_rank0(lambda: 5) == 5 and group.broadcast("x") == "x"
        assert group.all_reduce_and(torch.tensor([True, False])).tolist() == [True, False]
        group.barrier("nothing")
