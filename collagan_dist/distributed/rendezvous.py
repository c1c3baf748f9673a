"""Rendezvous: the ranks of a run find one another through rank 0's TCPStore, and missing ranks are named.

A launcher may keep one store over several starts, so what a former start left in it must not be believed. Each process
writes a hello with a random token. Rank 0 answers each token with the name of this start, and the rank confirms the
answer, which only a live process can. Everything that follows is stored under that name.

Where the start has a secret (world.rendezvous_secret), everything up to here carries a proof of it. Whoever reaches the port without
the secret can neither join nor answer for rank 0; such hellos are counted.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import logging
import math
import os
import secrets
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

import torch.distributed as dist

from collagan_dist.distributed import addresses
from collagan_dist.distributed.world import (
    launcher_hosts_store,
    other_nodes,
    rendezvous_address,
    rendezvous_secret,
    start_id,
)
from collagan_dist.errors import ClusterError, mark_on_all_ranks
from collagan_dist.types import World

logger = logging.getLogger(__name__)

DOCTOR_HINT = "`collagan doctor --net`, started the same way, checks the network"
_SAME_SECRET = "COLLAGAN_RENDEZVOUS_SECRET must be the same on all ranks"
_MAX_HELLO_BYTES = 4096
_MAC_CHARACTERS = 64  # of SHA-256 in hexadecimal
# Between two hellos of a rank that has no answer: at first, and at most. Each time that such a wait ends torch warns, on every rank.
_REPEAT_SECONDS, _MAX_REPEAT_SECONDS = 1.0, 30.0
_POLL_SECONDS = 0.05
_LINGER_SECONDS = 2.0  # rank 0 keeps its store open so long after a failure, so that the others can read the reason
# One store answers all ranks: of 1,024 ranks on two cores 326 had not heard the reason after two seconds.
_LINGER_SECONDS_A_RANK = 0.01
_EXTRA_WAIT_SECONDS = 5.0  # the others wait longer than rank 0 by this, for the same


@dataclass(frozen=True)
class Hello:
    """What a process says of itself. `master`: the address that MASTER_ADDR means on its host; `proof`: see `_proof`."""

    token: str
    host: str
    size: int
    master: str | None
    proof: str = ""


@dataclass(frozen=True)
class Rendezvous:
    """Ranks that have met.

    store            a key-value store of this start alone
    hosts            how many there are
    master_seen_as   rank 0's address as other hosts know it
    """

    store: dist.Store
    hosts: int
    master_seen_as: str | None

    def choose_interface(self) -> None:
        """Tell gloo which interface leads to the other nodes where this host's own name means loopback."""
        if self.hosts == 1 or "GLOO_SOCKET_IFNAME" in os.environ:
            return
        # gloo listens at the address of the host's own name, which Debian's /etc/hosts maps to 127.0.1.1.
        if addresses.is_loopback(addresses.resolve(socket.gethostname()) or "127.0.0.1"):
            name = addresses.route_interface(self.master_seen_as, rendezvous_address()[0])
            if name is not None:
                os.environ["GLOO_SOCKET_IFNAME"] = name


def rendezvous(world: World, timeout: float) -> Rendezvous:
    """Wait until all ranks have joined, at most `timeout` seconds. Raises ClusterError on every rank that has joined."""
    host, port = rendezvous_address()
    return _Attempt(world, host, port, timeout).run()


class _Attempt:
    """One rank's part in a rendezvous at `host`:`port`."""

    def __init__(self, world: World, host: str, port: int, timeout: float) -> None:
        self.world, self.host, self.port, self.timeout = world, host, port, timeout
        self.address = f"{host}:{port}"
        self.end = time.monotonic() + timeout
        self.secret = rendezvous_secret()
        hello = Hello(secrets.token_hex(8), socket.gethostname(), world.size, addresses.resolve(host))
        self.hello = replace(hello, proof=_proof(self.secret, world.rank, hello))
        self.refused: set[str] = set()  # hellos without the secret

    def run(self) -> Rendezvous:
        # Below the launcher's id: the ranks of another job that come to this port by mistake are not heard.
        store = dist.PrefixStore(start_id(), self._open_store())
        # Ranks that lose the connection meanwhile get one line, not the library's C++ stack.
        try:
            return self._receive(store) if self.world.is_rank0 else self._join(store)
        except dist.DistError as error:
            text = f"{self._who}: the rendezvous at {self.address} failed: {_first_line(error)}. {self._advice}"
            raise ClusterError(text) from None

    @property
    def _who(self) -> str:
        return f"rank {self.world.rank} of {self.world.size} on {socket.gethostname()}"

    @property
    def _advice(self) -> str:
        return f"Every node must reach {self.host} (MASTER_ADDR) on port {self.port} (MASTER_PORT); {DOCTOR_HINT}"

    def _open_store(self) -> dist.Store:
        """Return the store: rank 0 creates it unless the launcher hosts it, the others connect."""
        if self.world.is_rank0 and not launcher_hosts_store():
            try:
                return _listen(self._own_address(), self.port, ":" in (self.hello.master or ""))
            except (RuntimeError, OSError) as error:
                text = f"{self._who} cannot listen on port {self.port} (MASTER_PORT): {_first_line(error)}"
                if "EADDRINUSE" in str(error) or getattr(error, "errno", None) == errno.EADDRINUSE:
                    text = (
                        f"{self._who}: port {self.port} of {socket.gethostname()}, the rendezvous of the ranks, is in use by another "
                        f"process (`ss -ltnp 'sport = :{self.port}'` shows which). Set MASTER_PORT to a free port, or start again"
                    )
                raise ClusterError(text) from None
        # A plain connection first: TCPStore prints pages when nobody listens, and does not say what is wrong.
        why = addresses.wait_for_listener(self.host, self.port, self.end)
        store = self._connect() if why is None else None
        if store is None:
            why = why or f"something answers at {self.host}, port {self.port}, but it is not the rendezvous of a run"
            raise ClusterError(
                f"{self._who} could not join the others within {self.timeout:g} s: {why}. {self._advice}"
            )
        return store

    def _own_address(self) -> str | None:
        """Return rank 0's address to listen on alone: that of MASTER_ADDR; None, for all, where only other hosts know it."""
        own = self.hello.master
        if self.world.size == self.world.local_size or not addresses.is_loopback(own):
            return own
        # Debian's 127.0.1.1, or `localhost` on the master: other hosts come to the address on the route to them.
        return addresses.route_address(filter(None, map(addresses.resolve, other_nodes())))

    def _connect(self) -> dist.Store | None:
        stores: list[dist.Store] = []
        left = max(1.0, self.end - time.monotonic())
        limit = timedelta(seconds=left)

        def connect() -> None:
            with suppress(RuntimeError):
                stores.append(dist.TCPStore(self.host, self.port, timeout=limit, wait_for_workers=False))

        # In a thread, because TCPStore ignores its timeout and waits for ever when a foreign program listens there.
        thread = threading.Thread(target=connect, daemon=True)
        thread.start()
        thread.join(left)
        return stores[0] if stores else None

    def _receive(self, store: dist.Store) -> Rendezvous:
        """Rank 0: answer every hello until all ranks have confirmed."""
        # A random name rather than the launcher's restart count: torchrun's agents count restarts each for themselves, and
        # do not count a change of the nodes.
        start, joined = secrets.token_hex(8), {0: self.hello}
        answered: set[str] = set()
        while len(joined) < self.world.size:
            for rank, text in _read_hellos(store, set(range(self.world.size)) - set(joined)).items():
                hello = self._accept(rank, text)
                if hello is None:
                    continue
                if hello.token not in answered:
                    answered.add(hello.token)
                    self._write(store, f"answer/{hello.token}", start)
                # A hello alone may be of a former start; its process has ended and confirms nothing.
                confirmed = f"{start}/confirmed/{hello.token}"
                if store.check([confirmed]) and self._verified_text(confirmed, store.get(confirmed)) is not None:
                    joined[rank] = hello
            if mismatch := _size_mismatch(joined):
                self._abort(store, start, f"at {self.address}: {mismatch}")
            if time.monotonic() > self.end:
                self._abort(store, start, self._missing(joined))
            time.sleep(_POLL_SECONDS)
        # Rank 0 may know its own name as loopback only; any other host knows the address that leads here.
        others = [hello.master for hello in joined.values() if hello.host != self.hello.host and hello.master]
        hosts, master = len({hello.host for hello in joined.values()}), others[0] if others else None
        self._write(store, f"{start}/outcome", json.dumps({"hosts": hosts, "master": master}))
        return Rendezvous(dist.PrefixStore(start, store), hosts, master)

    def _accept(self, rank: int, text: bytes) -> Hello | None:
        """Return the hello if it proves that its process knows the secret; else None, counted once."""
        try:
            hello = parse_hello(text)
            if hmac.compare_digest(hello.proof, _proof(self.secret, rank, hello)):
                return hello
        except (ValueError, TypeError, RecursionError):
            pass
        if (digest := hashlib.sha256(text).hexdigest()) not in self.refused:
            self.refused.add(digest)
            logger.warning("warning: %s: a hello as rank %d without this start's secret is refused", self._who, rank)
        return None

    def _missing(self, joined: Mapping[int, Hello]) -> str:
        missing = sorted(set(range(self.world.size)) - set(joined))
        return (
            f"{len(missing)} of {self.world.size} ranks did not come to {self.address} within {self.timeout:g} s: "
            f"missing {_ranks(missing)}; those that came: {_by_host(joined)}; "
            f"for {self.hello.host} that host is {self.hello.master or 'unknown'}; if others know it by another address, set MASTER_ADDR to that. "
            f"{self._refused}Look for their own messages, or for why they were not started; {DOCTOR_HINT}"
        )

    def _abort(self, store: dist.Store, start: str, text: str) -> None:
        """Tell all ranks that came why nothing starts, and raise it."""
        self._write(store, f"{start}/outcome", json.dumps({"error": text}))
        time.sleep(_LINGER_SECONDS + self.world.size * _LINGER_SECONDS_A_RANK)
        raise mark_on_all_ranks(ClusterError(text))

    def _write(self, store: dist.Store, key: str, text: str) -> None:
        """Set a key to a text, and to the proof that a process which knows the secret wrote it there."""
        store.set(key, (_mac(self.secret, key, text) if self.secret else "") + text)

    def _verified_text(self, key: str, content: bytes) -> str | None:
        """Return the text that `_write` set; None if its proof is wrong."""
        length = _MAC_CHARACTERS if self.secret else 0
        proof, text = content[:length], content[length:].decode(errors="replace")
        right = not self.secret or hmac.compare_digest(proof, _mac(self.secret, key, text).encode())
        return text if right else None

    def _wait(self, store: dist.Store, key: str, end: float) -> str | None:
        """Return the text that `_write` set, once it is there; None if it is not by `end` (time.monotonic)."""
        try:
            store.wait([key], timedelta(seconds=max(0.001, end - time.monotonic())))
        except dist.DistStoreError:
            return None
        text = self._verified_text(key, store.get(key))
        if text is None:
            time.sleep(_POLL_SECONDS)  # a stranger's: the caller may ask again
        return text

    @property
    def _refused(self) -> str:
        count = len(self.refused)
        return f"{count} hello(s) without this start's secret were refused: {_SAME_SECRET}. " if count else ""

    def _join(self, store: dist.Store) -> Rendezvous:
        """Any other rank: write a hello, confirm rank 0's answer, wait for the outcome."""
        end = self.end + _EXTRA_WAIT_SECONDS + self.world.size * _LINGER_SECONDS_A_RANK
        start, pause = None, _REPEAT_SECONDS if self.secret else math.inf
        while start is None and time.monotonic() < end:
            # With a secret again and again: somebody without it may have written over the hello.
            store.set(f"hello/{self.world.rank}", json.dumps(vars(self.hello)))
            start = self._wait(store, f"answer/{self.hello.token}", min(end, time.monotonic() + pause))
            pause = min(2 * pause, _MAX_REPEAT_SECONDS)
        if start is None:
            raise ClusterError(
                f"{self._who}: {self.address} answers, but rank 0 did not within {self.timeout:g} s: it did not come, or {_SAME_SECRET}. "
                f"Look for its own message; {DOCTOR_HINT}"
            )
        self._write(store, f"{start}/confirmed/{self.hello.token}", "")
        text = self._wait(store, f"{start}/outcome", end)
        if text is None:
            why = f"rank 0 at {self.address} stopped answering during the rendezvous"
            raise ClusterError(f"{self._who}: {why}. {DOCTOR_HINT}")
        outcome = json.loads(text)
        if "error" in outcome:
            # Rank 0 prints it for all.
            raise mark_on_all_ranks(ClusterError(outcome["error"]))
        return Rendezvous(dist.PrefixStore(start, store), outcome["hosts"], outcome["master"])


def _listen(address: str | None, port: int, by_ipv6: bool = False) -> dist.Store:
    """Return the store that listens on one address of this host, or on all where none is given or it is no host's own."""
    own = _listening_socket(address, port) if address else None
    if own is None and not by_ipv6:
        # On IPv4 alone. The store looks up the name of whoever connects, one after the other, and a socket for both families sees
        # ::ffff:10.0.0.1, which no /etc/hosts has: a slow DNS would then keep 1,024 ranks waiting for each lookup.
        own = _listening_socket("0.0.0.0", port)
    # wait_for_workers would block until all ranks are there, and name nobody.
    options = {"is_master": True, "wait_for_workers": False, "multi_tenant": True}
    if own is None:
        return dist.TCPStore("127.0.0.1", port, **options)  # type: ignore[arg-type]
    with own:
        host = own.getsockname()[0].replace("0.0.0.0", "127.0.0.1")
        store = dist.TCPStore(host, port, master_listen_fd=own.fileno(), **options)  # type: ignore[arg-type]
        own.detach()  # the store's from here on
    return store


def _listening_socket(address: str, port: int) -> socket.socket | None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=socket.SOMAXCONN)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        return None  # a service that forwards to this host, as Kubernetes has them


def parse_hello(text: bytes) -> Hello:
    """Read a hello, which anybody may have written. Raises ValueError, TypeError, RecursionError."""
    if len(text) > _MAX_HELLO_BYTES:
        raise ValueError("too long")
    said = json.loads(text)
    hello = Hello(**said)
    kinds = {"token": str, "host": str, "size": int, "master": str | None, "proof": str}
    if not all(isinstance(getattr(hello, name), kind) for name, kind in kinds.items()) or not hello.proof.isascii():
        raise TypeError("a value of another kind")
    return hello


def _proof(secret: bytes, rank: int, hello: Hello) -> str:
    """Return what only a process that knows the secret can say with this hello; "" without a secret."""
    return _mac(secret, "hello", rank, hello.token, hello.host, hello.size, hello.master) if secret else ""


def _mac(secret: bytes, *words: object) -> str:
    return hmac.new(secret, json.dumps(words).encode(), hashlib.sha256).hexdigest()


def _read_hellos(store: dist.Store, ranks: Iterable[int]) -> dict[int, bytes]:
    """Return the hello of each of `ranks` that wrote one; it may be of a former start, or a stranger's."""
    keys = {f"hello/{rank}": rank for rank in sorted(ranks)}
    return {keys[key]: store.get(key) for key in present_keys(store, list(keys))}


def present_keys(store: dist.Store, keys: list[str]) -> list[str]:
    """Return those keys that are in the store: `get` and `multi_get` would block on the others."""
    # By halves, since a store says only whether all keys of a list are there: few requests where few are missing, at most two a key.
    if not keys or store.check(keys):
        return keys
    half = len(keys) // 2
    return [*present_keys(store, keys[:half]), *present_keys(store, keys[half:])] if half else []


def _size_mismatch(joined: Mapping[int, Hello]) -> str | None:
    # Ranks of two launches that share a port by mistake: waiting for the larger number would end in a timeout.
    sizes = defaultdict(list)
    for rank, hello in joined.items():
        sizes[hello.size].append(rank)
    if len(sizes) == 1:
        return None
    groups = "; ".join(f"{_ranks(ranks)} of {size}" for size, ranks in sorted(sizes.items()))
    return f"ranks do not agree on how many they are: {groups}; start all of them by one launcher"


def _by_host(joined: Mapping[int, Hello]) -> str:
    hosts = defaultdict(list)
    for rank, hello in sorted(joined.items()):
        hosts[hello.host].append(rank)
    return ", ".join(f"{_ranks(ranks)} ({host})" for host, ranks in hosts.items())


def _ranks(ranks: Iterable[int]) -> str:
    """Write `rank 3`, or `ranks 0-3, 7`."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    text = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
    return f"rank{'s' if len(runs) > 1 or runs[0][0] != runs[0][1] else ''} {text}"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300]  # torch appends a C++ stack
