import json
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as dist

from collagan_dist.distributed import addresses
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


def meet(*ranks: tuple[int, ...]) -> list[Rendezvous | ClusterError]:
    """Start these ranks, each with its number and what it takes for the world size; what each got."""

    def start(rank: tuple[int, ...]) -> Rendezvous | ClusterError:
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


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    """The secret of the start, known to all ranks of a test."""
    secret = "s" * 32
    monkeypatch.setenv("COLLAGAN_RENDEZVOUS_SECRET", secret)
    return secret


def hello(**changes: object) -> str:
    return json.dumps({"token": "t", "host": "h", "size": 2, "master": None} | changes)


STRANGERS = [
    hello(), hello(proof="0" * 64), hello(proof="\u00e4"), hello(proof=None), hello(size="2"), hello(more=1), "", "{", "[]", "[" * 3000,
    hello(host="h" * 5000),
]  # fmt: skip


@pytest.mark.parametrize("text", STRANGERS, ids=range(len(STRANGERS)))
def test_a_hello_without_the_secret_is_refused_and_counted(port, secret, monkeypatch, text):
    """Neither joins it in place of rank 1, nor does it keep rank 1 out."""
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    agent = dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    public = dist.PrefixStore(start_id(), agent)
    public.set("hello/1", text)
    (alone,) = meet((0, 2))
    assert isinstance(alone, ClusterError) and "missing rank 1" in str(alone)
    assert "1 hello(s) without this start's secret were refused: COLLAGAN_RENDEZVOUS_SECRET" in str(alone)
    both = meet((0, 2), (1, 2))
    assert all(isinstance(one, Rendezvous) for one in both), both


@pytest.mark.parametrize("answer", ["a start", "0" * 64 + "a start", ""])
def test_nobody_without_the_secret_answers_for_rank_0(port, secret, monkeypatch, answer):
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setattr(module.secrets, "token_hex", lambda count: "known")
    agent = dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    public = dist.PrefixStore(start_id(), agent)
    public.set("answer/known", answer)
    public.set("a start/outcome", json.dumps({"error": "a stranger's"}))
    (alone,) = meet((1, 2))
    assert isinstance(alone, ClusterError) and "rank 0 did not within" in str(alone)


def test_a_rank_without_the_secret_stays_outside(port, secret, monkeypatch):
    known = iter([secret.encode(), b"that of a former start"])
    monkeypatch.setattr(module, "rendezvous_secret", lambda: next(known))
    first, second = meet((0, 2), (1, 2))
    assert "missing rank 1" in str(first) and "COLLAGAN_RENDEZVOUS_SECRET must be the same" in str(second)


def listening(port):
    """The addresses where somebody listens at a port."""
    return [
        line.split()[3].rpartition(":")[0] for line in subprocess.getoutput(f"ss -ltnH sport = :{port}").splitlines()
    ]


OUTWARD = addresses.source_address("198.51.100.1")  # this host's own, on the way to an address of nobody's


@pytest.mark.parametrize(
    ("host", "hosts", "nodes", "listens"),
    [
        ("127.0.0.1", 1, "", "127.0.0.1"),
        ("127.0.0.1", 2, "", "0.0.0.0"),  # other hosts know it by another address: which one?
        ("127.0.1.1", 2, "n1 198.51.100.1", OUTWARD),  # Debian's name of a node, and the job's other node
        pytest.param(OUTWARD, 2, "", OUTWARD, marks=pytest.mark.skipif(OUTWARD is None, reason="no way out")),
        ("::1", 1, "", "[::1]"),
    ],
)  # fmt: skip
def test_the_store_listens_on_the_address_of_the_job_alone(port, monkeypatch, host, hosts, nodes, listens):
    monkeypatch.setenv("COLLAGAN_NODES", nodes)
    monkeypatch.setenv("MASTER_ADDR", host)
    attempt = module._Attempt(World(0, 2, 0, 2 // hosts), host, port, TIMEOUT)
    store = attempt._open_store()
    assert listening(port) == [listens or "*"]
    store.set("key", "value")
    del store


def test_ranks_meet_where_the_store_of_one_host_listens(port):
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda rank: rendezvous(World(rank, 2, rank, 2), TIMEOUT), range(2))
        assert listening(port) == ["127.0.0.1"] and first.hosts == second.hosts == 1


def test_the_address_of_a_service_that_forwards_here(port):
    """Kubernetes gives MASTER_ADDR an address that is no host's own."""
    store = module._listen("198.51.100.1", port)
    assert listening(port) == ["0.0.0.0"]
    store.set("key", "value")


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
        (here,) = meet((0, 2, 0, 2))
    assert f"port {port} of {socket.gethostname()}" in str(here)
    assert f"port {port} of {socket.gethostname()}" in str(first) and "MASTER_PORT" in str(first)
    assert "it is not the rendezvous of a run" in str(second)


@pytest.mark.parametrize("there", [[], [0], [5, 6], list(range(9)), list(range(8))])
def test_which_keys_a_store_has(port, there):
    """Few questions where few are missing."""
    store = dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    for number in there:
        store.set(f"key/{number}", "")
    asked: list[int] = []

    class Counting:
        def check(self, keys: list[str]) -> bool:
            asked.append(len(keys))
            return store.check(keys)

    keys = [f"key/{number}" for number in range(9)]
    assert module.present_keys(Counting(), keys) == [f"key/{number}" for number in there]
    assert len(asked) <= (1 if len(there) == 9 else 9 if len(there) == 8 else 2 * 9)
