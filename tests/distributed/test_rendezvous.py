import json
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as dist

from collagan_dist.distributed import rendezvous as module
from collagan_dist.distributed.rendezvous import Rendezvous, rendezvous
from collagan_dist.distributed.world import start_id
from collagan_dist.errors import ClusterError
from collagan_dist.types import World
from tests.faults.processes import free_port

TIMEOUT = 2.0


@pytest.fixture(autouse=True)
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """A free port, where the ranks of a test meet; failures do not linger for other processes."""
    port = free_port()
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))
    monkeypatch.setattr(module, "_LINGER_SECONDS", 0.3)
    return port


def meet(*ranks: tuple[int, int]) -> list[Rendezvous | ClusterError]:
    """Start these ranks, each with its number and what it takes for the world size; what each got."""

    def start(rank: tuple[int, int]) -> Rendezvous | ClusterError:
        try:
            return rendezvous(World(*rank), TIMEOUT)
        except ClusterError as error:
            return error

    with ThreadPoolExecutor(len(ranks)) as pool:
        return [*pool.map(start, ranks)]


def test_all_ranks_get_one_store():
    first, second, third = meet((0, 3), (1, 3), (2, 3))
    assert all(isinstance(one, Rendezvous) and one.hosts == 1 for one in (first, second, third)), first
    first.store.set("key", "value")
    assert third.store.get("key") == b"value"


def test_missing_ranks_are_named_on_all_that_came(port):
    first, last = meet((0, 4), (2, 4))
    assert isinstance(first, ClusterError) and first.raised_on_all_ranks and str(first) == str(last)
    expected = f"2 of 4 ranks did not come to 127.0.0.1:{port} within {TIMEOUT:g} s: missing ranks 1, 3; "
    assert str(first).startswith(f"{expected}those that came: ranks 0, 2 ({socket.gethostname()})")
    assert "collagan doctor --net" in str(first)


def test_ranks_that_disagree_on_the_world_size():
    first, second = meet((0, 2), (1, 3))
    assert str(first) == str(second) and "rank 0 of 2; rank 1 of 3" in str(first)


def test_nothing_of_a_former_start_is_believed(port, monkeypatch):
    """In the store of torchrun's agent, which outlives the ranks."""
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    agent = dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    first, second = meet((0, 2), (1, 2))
    assert isinstance(first, Rendezvous) and isinstance(second, Rendezvous), first
    # Rank 1's hello still lies there, but its process answers no more.
    assert json.loads(dist.PrefixStore(start_id(), agent).get("hello/1"))["size"] == 2
    (alone,) = meet((0, 2))
    assert isinstance(alone, ClusterError) and "missing rank 1;" in str(alone)
    again, _ = meet((0, 2), (1, 2))
    assert isinstance(again, Rendezvous), again
    first.store.set("of the first start", "")
    assert not again.store.check(["of the first start"])


def test_rank_0_does_not_come(port):
    (alone,) = meet((1, 2))
    assert f"127.0.0.1 refuses port {port}" in str(alone) and "MASTER_ADDR" in str(alone)
    assert f"rank 1 of 2 on {socket.gethostname()}" in str(alone) and not alone.raised_on_all_ranks


def test_the_port_is_in_use(port):
    """Rank 0 names port and host; rank 1 does not wait for a foreign program for ever."""
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", port))
        taken.listen()
        first, second = meet((0, 2), (1, 2))
    assert f"port {port} of {socket.gethostname()}" in str(first) and "MASTER_PORT" in str(first)
    assert "it is not the rendezvous of a run" in str(second)
