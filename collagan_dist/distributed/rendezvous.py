"""How the ranks of a run find one another: at rank 0's store, within a time, and who is missing is said by name.

A launcher may keep one store over several starts (torchrun's agent does, over restarts and changes of the node count), so
nothing that lies there is believed. Every process brings a token; rank 0 answers to the token with the name of this
meeting, and all that follows lies below that name.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from collagan_dist.distributed import addresses
from collagan_dist.distributed.world import launcher_hosts_store, rendezvous_address, start_id
from collagan_dist.errors import ClusterError, on_all_ranks
from collagan_dist.types import World

HELP = "`collagan doctor --net`, started the same way, looks at the network"
_POLL = 0.05  # seconds between two looks of rank 0 at the store
_LINGER = 2.0  # seconds for which rank 0 keeps its store open, so that the others can read why it gives up
_LATE = 5.0  # seconds for which the others wait longer than rank 0, for the same


@dataclass(frozen=True)
class Rendezvous:
    """Where ranks met: a store of this start's own, how many hosts there are, rank 0's address as other hosts know it."""

    store: dist.Store
    hosts: int
    master_seen_as: str | None

    def choose_interface(self) -> None:
        """Tell gloo which way leads to the other nodes, where this host's own name does not (Debian's 127.0.1.1)."""
        if self.hosts == 1 or "GLOO_SOCKET_IFNAME" in os.environ:
            return
        if addresses.is_loopback(addresses.resolve(socket.gethostname()) or "127.0.0.1"):
            name = addresses.leading_interface(self.master_seen_as, rendezvous_address()[0])
            if name is not None:
                os.environ["GLOO_SOCKET_IFNAME"] = name


def rendezvous(world: World, timeout: float) -> Rendezvous:
    """Wait until all ranks are there, at most `timeout` seconds. Raises ClusterError on every rank that is."""
    host, port = rendezvous_address()
    end = time.monotonic() + timeout
    # Another run that strays to this port is not heard.
    store = dist.PrefixStore(start_id(), _open(world, host, port, end, timeout))
    own = {"token": secrets.token_hex(8), "host": socket.gethostname(), "size": world.size}
    own["master"] = addresses.resolve(host)
    try:
        if world.is_rank0:
            return _receive(store, world, own, end, f"{host}:{port}", timeout)
        return _join(store, world, own, end + _LATE, f"{host}:{port}", timeout)
    except dist.DistError as error:
        raise ClusterError(
            f"{_who(world)}: the meeting at {host}:{port} broke off: {_reason(error)}. {_next(host, port)}"
        ) from None


def _open(world: World, host: str, port: int, end: float, timeout: float) -> dist.Store:
    """The store at the meeting place. Rank 0 opens it, unless the launcher did."""
    if world.is_rank0 and not launcher_hosts_store():
        try:
            return dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, multi_tenant=True)
        except RuntimeError as error:
            if "EADDRINUSE" not in str(error):
                raise ClusterError(
                    f"{_who(world)} cannot listen on port {port} (MASTER_PORT): {_reason(error)}"
                ) from None
            raise ClusterError(
                f"{_who(world)}: port {port} of {socket.gethostname()}, where the ranks are to meet, is in use by another process "
                f"(`ss -ltnp 'sport = :{port}'` shows which). Set MASTER_PORT to a free port, or start again"
            ) from None
    # Asked in our own words first: the library waits for ever for an answer of a stranger, and fills pages when there is none.
    why = addresses.wait_for(host, port, end)
    store = _connect(host, port, end) if why is None else None
    if store is None:
        why = why or f"something answers at {host}, port {port}, but it is not the meeting place of any run"
        raise ClusterError(f"{_who(world)} could not meet the others within {timeout:g} s: {why}. {_next(host, port)}")
    return store


def _connect(host: str, port: int, end: float) -> dist.Store | None:
    """A connection to the store there; None where there is none."""
    found: list[dist.Store] = []

    def connect() -> None:
        with suppress(RuntimeError):
            found.append(dist.TCPStore(host, port, timeout=timedelta(seconds=_left(end)), wait_for_workers=False))

    asking = threading.Thread(target=connect, daemon=True)
    asking.start()
    asking.join(_left(end))
    return found[0] if found else None


def _left(end: float) -> float:
    return max(1.0, end - time.monotonic())


def _receive(
    store: dist.Store, world: World, own: dict[str, Any], end: float, place: str, timeout: float
) -> Rendezvous:
    """Rank 0: answer whoever comes, until all are there."""
    name, here = secrets.token_hex(8), {0: own}
    answered: set[str] = set()
    while len(here) < world.size:
        for rank, said in _said(store, set(range(world.size)) - set(here)).items():
            if said["token"] not in answered:
                answered.add(said["token"])
                store.set(f"answer/{said['token']}", name)
            if store.check([f"{name}/came/{said['token']}"]):  # alive: it has read the answer
                here[rank] = said
        if wrong := _wrong(here):
            _abort(store, name, f"at {place}: {wrong}")
        if time.monotonic() > end:
            missing = sorted(set(range(world.size)) - set(here))
            _abort(
                store, name,
                f"{len(missing)} of {world.size} ranks did not come to {place} within {timeout:g} s: missing {_ranks(missing)}; "
                f"those that came: {_by_host(here)}; for {own['host']} that host is {own['master'] or 'unknown'}. "
                f"Look for their own messages, or for why they were not started; {HELP}",
            )  # fmt: skip
        time.sleep(_POLL)
    seen = [said["master"] for said in here.values() if said["host"] != own["host"] and said["master"]]
    hosts = len({said["host"] for said in here.values()})
    store.set(f"{name}/word", json.dumps({"hosts": hosts, "master": seen[0] if seen else None}))
    return Rendezvous(dist.PrefixStore(name, store), hosts, seen[0] if seen else None)


def _join(store: dist.Store, world: World, own: dict[str, Any], end: float, place: str, timeout: float) -> Rendezvous:
    """Any other rank: say who it is, and wait for rank 0's word."""
    store.set(f"hello/{world.rank}", json.dumps(own))
    name = _wait(store, f"answer/{own['token']}", end)
    if name is None:
        raise ClusterError(
            f"{_who(world)}: {place} is there, but rank 0 is not after {timeout:g} s. Look for its own message; {HELP}"
        )
    store.set(f"{name}/came/{own['token']}", "")
    word = _wait(store, f"{name}/word", end)
    if word is None:
        raise ClusterError(f"{_who(world)}: rank 0 at {place} fell silent while ranks were gathering. {HELP}")
    facts = json.loads(word)
    if "error" in facts:
        raise on_all_ranks(ClusterError(facts["error"]))
    return Rendezvous(dist.PrefixStore(name, store), facts["hosts"], facts["master"])


def _said(store: dist.Store, ranks: Iterable[int]) -> dict[int, dict[str, Any]]:
    """What ranks say of themselves, of those that say anything; it may be of a former start."""
    keys = {rank: f"hello/{rank}" for rank in sorted(ranks)}
    known = [rank for rank, key in keys.items() if store.check([key])]
    return {rank: json.loads(store.get(keys[rank])) for rank in known}


def _wrong(here: Mapping[int, dict[str, Any]]) -> str | None:
    """What makes these ranks no world, or None."""
    sizes = defaultdict(list)
    for rank, said in here.items():
        sizes[said["size"]].append(rank)
    if len(sizes) > 1:
        told = "; ".join(f"{_ranks(ranks)} of {size}" for size, ranks in sorted(sizes.items()))
        return f"ranks do not agree on how many they are: {told}; start all of them by one launcher"
    return None


def _abort(store: dist.Store, name: str, text: str) -> None:
    """Tell everybody who came why nothing begins, and raise it."""
    store.set(f"{name}/word", json.dumps({"error": text}))
    time.sleep(_LINGER)
    raise on_all_ranks(ClusterError(text))


def _wait(store: dist.Store, key: str, end: float) -> str | None:
    """The value when it is there; None when it is not in time."""
    try:
        store.wait([key], timedelta(seconds=max(0.001, end - time.monotonic())))
    except dist.DistStoreError:
        return None
    return store.get(key).decode()


def _by_host(here: Mapping[int, dict[str, Any]]) -> str:
    hosts = defaultdict(list)
    for rank, said in sorted(here.items()):
        hosts[said["host"]].append(rank)
    return ", ".join(f"{_ranks(ranks)} ({host})" for host, ranks in hosts.items())


def _ranks(ranks: Iterable[int]) -> str:
    """`rank 3`, or `ranks 0-3, 7`."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    text = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
    return f"rank{'s' if len(runs) > 1 or runs[0][0] != runs[0][1] else ''} {text}"


def _who(world: World) -> str:
    return f"rank {world.rank} of {world.size} on {socket.gethostname()}"


def _next(host: str, port: int) -> str:
    return f"Every node must reach {host} (MASTER_ADDR) on port {port} (MASTER_PORT); {HELP}"


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0][:300]
