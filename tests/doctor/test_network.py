import pytest
import torch

from collagan_dist.distributed import network_benchmark
from collagan_dist.distributed.group import Group
from collagan_dist.doctor import network
from collagan_dist.types import World


@pytest.mark.parametrize(
    ("seconds", "difference", "slow", "apart"),
    [(0.001, 0.5, False, False), (0.02, 0.5, True, False), (0.001, -1.5, False, True), (1.0, 1.5, True, False)],
)
def test_latency_and_clocks(seconds, difference, slow, apart, monkeypatch):
    """A clock difference within the round trip in which it was measured is not one."""
    monkeypatch.setattr(Group, "all_gather", lambda *_: ["n1", "n2"])
    monkeypatch.setattr(network_benchmark, "round_trips", lambda *_: {(0, 1): (seconds, difference)})
    latency, clocks = network.check_round_trips(Group(World(), torch.device("cpu")))
    assert [finding.state == "warning" for finding in (latency, clocks)] == [slow, apart]
    assert "between n1 and n2 (1 measured)" in latency.text and f"n2 is {difference:+.3f} s from n1" in clocks.text


def test_a_wrong_sum_names_its_ranks(monkeypatch):
    monkeypatch.setattr(network_benchmark, "all_reduce_is_correct", lambda *_: False)
    monkeypatch.setattr(network_benchmark, "all_reduce_seconds", lambda *_: {4096: 0.001, 1 << 20: 0.01})
    group = Group(World(), torch.device("cpu"))
    (found,) = network.check_all_reduce(group)
    assert (found.state, found.text) == ("failed", "the sum is wrong on ranks 0")
    monkeypatch.setattr(network_benchmark, "all_reduce_is_correct", lambda *_: True)
    (found,) = network.check_all_reduce(group)
    assert found.text == "right; 4 kB in 1.00 ms (4 MB/s), 1 MB in 10.00 ms (105 MB/s)"
