"""Finds ranks that hang: ranks exchange heartbeats, and when one waits too long all end and the missing rank is named.

Heartbeats go through the rendezvous store, from threads beside the main thread, because collectives are what hangs. A
timeout of the communication library names nobody and leaves an unusable process group. So all ranks exit with code 4,
and the launcher may start them again.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from collagan_dist.distributed.hang_report import (
    HangVerdict,
    Heartbeat,
    Observer,
    dump_stacks,
    ended_verdict,
    hang_verdict,
    store_lost_verdict,
)
from collagan_dist.distributed.rank_status import RankStatus
from collagan_dist.distributed.rendezvous import present_keys
from collagan_dist.distributed.world import launcher_hosts_store
from collagan_dist.errors import ClusterError
from collagan_dist.types import World

logger = logging.getLogger(__name__)

_MAX_HEARTBEAT_SECONDS = 5.0
_MAX_STORE_SILENCE_SECONDS = 10.0
_EXIT_SECONDS = 4.0  # between the verdict and the end of the process, at most
_STACKS_SECONDS = 2.0  # that the speaker waits for the other ranks' frames
_JOIN_SECONDS = 3.0

# Keys in the store.
_VERDICT = "hang"
_EXIT_REASON = "ended"
_REPORTED = "said"


class HangDetector:
    """Two threads of one rank.

    `_heartbeat_loop` talks to the store and may block in it; `_guard` never touches the store, and ends this rank when
    the store itself has stopped answering.
    """

    def __init__(
        self, world: World, store: dist.Store, status: RankStatus, timeout: float, rendezvous_timeout: float
    ) -> None:
        self.rank, self.size, self.status = world.rank, world.size, status
        self.timeout, self.rendezvous_timeout = timeout, rendezvous_timeout
        self._heartbeat_seconds = min(_MAX_HEARTBEAT_SECONDS, timeout / 4)
        self._poll_seconds = min(1.0, timeout / 10)
        self._observer = Observer(world.rank, status, timeout)
        self._store_address = _address(store)
        # A connection of its own: a call on the main thread's would block this thread, too.
        self._store = dist.PrefixStore("watch", store.clone())  # type: ignore[attr-defined]
        self._count = 0
        self._heartbeats: dict[int, Heartbeat] = {}
        self._last_change: dict[int, float] = {}  # when each rank's count was first seen to be what it is
        self._sent = self._received = self._store_answered = time.monotonic()
        self._last_poll = self._awake_since = self._sent
        self._others_exit_reason: str | None = None
        self._exit_reason: str | None = None
        self._stopped = threading.Event()
        self._exiting = threading.Lock()  # held from the verdict on, by the thread that ends the process
        self._send_first()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._heartbeat_loop, self._guard)]
        for thread in self._threads:
            thread.start()
        # A daemon thread that is inside the library when the interpreter ends would abort the process.
        atexit.register(self.stop)

    def stop(self, exit_reason: str | None = None) -> None:
        """Stop the threads. `exit_reason`: the error by which this rank alone ends, for the other ranks."""
        atexit.unregister(self.stop)
        if self._stopped.is_set():
            return
        self._exit_reason = exit_reason
        self._stopped.set()
        for thread in self._threads:
            thread.join(timeout=_JOIN_SECONDS)
        if exit_reason and self.rank == 0 and not launcher_hosts_store():
            # The store ends with this process: the other ranks need time to read the reason.
            time.sleep(2 * self._poll_seconds)

    def explain(self) -> str:
        """Return why another rank has ended, as far as it is known. Does not return if this rank is ending already."""
        if self._exiting.locked():
            time.sleep(2 * _EXIT_SECONDS)
        with suppress(RuntimeError):
            self._read_exit_reason()
        return self._others_exit_reason or "see its message"

    # Threads

    def _send_first(self) -> None:
        # Names are exchanged before anything can hang: a stopped rank 0 takes the store with it.
        self._send()
        with suppress(RuntimeError):  # `_heartbeat_loop` hears a late rank
            keys = [_heartbeat_key(rank) for rank in range(self.size)]
            self._store.wait(keys, timedelta(seconds=self._heartbeat_seconds))
            self._receive()

    def _heartbeat_loop(self) -> None:
        while not self._stopped.wait(self._poll_seconds):
            try:
                self._exchange()
                self._store_answered = time.monotonic()
            except dist.DistNetworkError:
                # The connection does not come back: the main thread's own error or `_guard` ends this rank.
                return
            except RuntimeError:
                continue
        if self._exit_reason:
            with suppress(RuntimeError):
                # compare_set with "" keeps the first reason: later ones are consequences.
                self._store.compare_set(_EXIT_REASON, "", self._exit_reason)

    def _exchange(self) -> None:
        """Send and receive heartbeats when they are due; end this rank if there is a verdict."""
        now = time.monotonic()
        if now - self._sent >= self._heartbeat_seconds:
            self._send()
            self._sent = now
        if self._store.check([_VERDICT]):
            self._exit(self._store.get(_VERDICT).decode())
        self._read_exit_reason()
        # gloo's collectives fail by themselves when a rank ends, NCCL's do not.
        if self._others_exit_reason is not None and self._waited_seconds() > self._heartbeat_seconds:
            self._decide(ended_verdict(self._observer, self._others_exit_reason))
        waited = self._waited_seconds()
        due = now - self._received >= self._heartbeat_seconds and waited > self._heartbeat_seconds
        # Reading all ranks costs one request per rank, so it is done only by ranks that wait.
        if due or waited > self._limit() or len(self._heartbeats) < self.size:
            self._receive()
            self._received = now
        if self._waited_seconds() > self._limit():
            now = time.monotonic()
            silent = {rank: now - self._last_change.get(rank, float("-inf")) for rank in range(self.size)}
            self._decide(hang_verdict(self._observer, self._heartbeats, silent))

    def _guard(self) -> None:
        while not self._stopped.wait(self._poll_seconds):
            waited = self._waited_seconds()
            silent = time.monotonic() - max(self._store_answered, self._awake_since)
            longest = min(_MAX_STORE_SILENCE_SECONDS, self.timeout / 2)
            if waited > self._limit() + self._poll_seconds and silent > longest:
                verdict = store_lost_verdict(self._observer, self._heartbeats.get(0), self._store_address, silent)
                self._exit(verdict.to_json())

    def _limit(self) -> float:
        """Seconds that the others may be waited for."""
        # Before the first step ranks import libraries, check shards and fetch them, each at its own speed.
        return self.timeout if self.status.step is not None else max(self.timeout, self.rendezvous_timeout)

    def _waited_seconds(self) -> float:
        waiting, now = self.status.waiting, time.monotonic()
        # A long gap between two polls means that this process itself was stopped. Neither that time nor the time before
        # counts: otherwise a rank that continues would accuse the others.
        if now - self._last_poll > self.timeout / 2:
            self._awake_since = now
        self._last_poll = now
        return now - max(waiting[1], self._awake_since) if waiting else 0.0

    # The store

    def _send(self) -> None:
        self._count += 1
        waiting = self.status.waiting
        waits = waiting[0] if waiting else None
        heartbeat = Heartbeat(self.rank, socket.gethostname(), os.getpid(), self._count, self.status.step, waits)
        self._store.set(_heartbeat_key(self.rank), json.dumps(vars(heartbeat)))

    def _receive(self) -> None:
        ranks = {_heartbeat_key(rank): rank for rank in range(self.size)}
        keys = present_keys(self._store, list(ranks))  # not of ranks that have never sent one
        now = time.monotonic()
        texts = self._store.multi_get(keys) if keys else []
        for rank, text in zip(map(ranks.__getitem__, keys), texts, strict=True):
            heartbeat = Heartbeat(**json.loads(text))
            # Counts are compared, not clocks, which differ between hosts.
            if rank not in self._heartbeats or self._heartbeats[rank].count != heartbeat.count:
                self._last_change[rank] = now
            self._heartbeats[rank] = heartbeat

    def _read_exit_reason(self) -> None:
        if self._others_exit_reason is None and self._store.check([_EXIT_REASON]):
            self._others_exit_reason = self._store.get(_EXIT_REASON).decode()

    def _wait_for_key(self, key: str, seconds: float) -> bool:
        until = time.monotonic() + seconds
        # store.wait would hold the store's connection for the whole time, and this thread is the only one that ends us.
        while not self._store.check([key]):
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    # The end

    def _decide(self, verdict: HangVerdict) -> None:
        # compare_set keeps the first verdict, so all ranks say the same.
        self._exit(self._store.compare_set(_VERDICT, "", verdict.to_json()).decode())

    def _exit(self, verdict_json: str) -> None:
        """Write stacks, say who is missing, end the process. Returns only if the other thread is doing so already."""
        if not self._exiting.acquire(blocking=False):
            return
        # A full disk, a hanging file system or the store must not keep this process alive.
        timer = threading.Timer(_EXIT_SECONDS, os._exit, [ClusterError.exit_code])
        timer.daemon = True
        timer.start()
        verdict = HangVerdict(**json.loads(verdict_json))
        self._end_stopped(verdict.silent)
        try:
            frames = dump_stacks(self.rank, self.status, self._waited_seconds())
            if verdict.speaker == self.rank:
                self._report(verdict, frames)
            else:
                self._store.set(f"frames/{self.rank}", frames)
                self._wait_for_key(_REPORTED, 3.0)
                logger.error(f"collagan: rank {self.rank} ends: ranks hang, as rank {verdict.speaker} says")
        except (RuntimeError, OSError):
            pass
        # sys.exit would run in this thread only, and the main thread would go on hanging.
        os._exit(ClusterError.exit_code)

    def _end_stopped(self, silent: list[int]) -> None:
        """End the silent ranks that the launcher of this rank has started here: it would wait 30 s for a stopped process."""
        for rank in silent:
            heartbeat = self._heartbeats.get(rank)
            # The parent tells: the pid may be another process's by now, or of another container of the same host name.
            if heartbeat and heartbeat.host == socket.gethostname() and _parent(heartbeat.pid) == os.getppid():
                with suppress(OSError):
                    os.kill(heartbeat.pid, signal.SIGKILL)

    def _report(self, verdict: HangVerdict, frames: str) -> None:
        others = [rank for rank in verdict.answering if rank != self.rank]
        deadline = time.monotonic() + _STACKS_SECONDS
        stacks = [f"rank {self.rank} is at:\n{frames}"] if self.rank in verdict.working else []
        for rank in others:
            came = self._wait_for_key(f"frames/{rank}", deadline - time.monotonic())
            if came and rank in verdict.working:
                stacks.append(f"rank {rank} is at:\n{self._store.get(f'frames/{rank}').decode()}")
        logs = f"{self.status.log_dir}/stacks-rank-*.txt" if self.status.log_dir else "above"
        end = f"all ranks end; Python stacks of those that answer: {logs}"
        logger.error("\n".join([f"collagan: {verdict.text}", *stacks, end]))
        if others:
            self._store.set(_REPORTED, "")
            time.sleep(0.3)  # the store may end with this process
        elif not verdict.answering:
            time.sleep(2.0)  # the store is lost, so nobody can be told: let the others come to the same verdict


def _heartbeat_key(rank: int) -> str:
    return f"beat/{rank}"


def _parent(pid: int) -> int:
    """The pid of a process's parent; 0 where it is gone, or the system has no /proc."""
    try:
        # The name in parentheses may hold blanks and parentheses itself, so split behind the last one.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _address(store: dist.Store) -> str:
    while isinstance(store, dist.PrefixStore):
        store = store.underlying_store
    return f"{store.host}:{store.port}" if isinstance(store, dist.TCPStore) else "?"
