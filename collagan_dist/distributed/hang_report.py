"""What is said and kept when ranks hang: the verdict on who is missing, Python stacks, and torch's last collectives."""

from __future__ import annotations

import faulthandler
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from collagan_dist.distributed.rank_status import RankStatus
from collagan_dist.distributed.world import launcher_hosts_store

_STACK_FRAMES = 4  # of a hanging rank, in the message


@dataclass(frozen=True)
class Heartbeat:
    """What a rank says of itself. `count` rises by one each time; `waits` is None while it does its own work."""

    rank: int
    host: str
    pid: int
    count: int
    step: int | None
    waits: str | None

    def __str__(self) -> str:
        return f"rank {self.rank} (host {self.host}, pid {self.pid})"


@dataclass(frozen=True)
class HangVerdict:
    """Why all ranks end. The first rank that decides writes it to the store, and all others follow it.

    speaker     The rank that prints it for all.
    answering   Ranks that can still write their stacks.
    working     Ranks that are waited for although they answer: busy or stuck in their own code.
    silent      Ranks that do not answer: stopped, or their machine or network is gone.
    """

    text: str
    speaker: int
    answering: list[int]
    working: list[int]
    silent: list[int]

    def to_json(self) -> str:
        return json.dumps(vars(self))


@dataclass(frozen=True)
class Observer:
    """The rank that judges: its number, its status and `runtime.timeout`."""

    rank: int
    status: RankStatus
    timeout: float

    @property
    def waited_seconds(self) -> float:
        # The main thread may leave the collective meanwhile; then there is nothing to add.
        waiting = self.status.waiting
        return time.monotonic() - waiting[1] if waiting else 0.0


def hang_verdict(observer: Observer, heartbeats: Mapping[int, Heartbeat], silent: Mapping[int, float]) -> HangVerdict:
    """Name the ranks that are missing. `silent`: seconds since each rank's last heartbeat, infinite without any."""
    # Half of the timeout holds two heartbeats at least (HangDetector sends them every quarter).
    answering = [rank for rank in silent if silent[rank] < observer.timeout / 2 or rank == observer.rank]
    working = [rank for rank in answering if rank != observer.rank and heartbeats[rank].waits is None]
    # A rank that waits, too, is another victim; one that works is what the others wait for.
    missing = [rank for rank in silent if rank not in answering or rank in working]
    waited = f"in {observer.waited_seconds:.0f} s (runtime.timeout is {observer.timeout:g})"
    if not missing:
        # All are alive and all wait: nobody is to blame, so everybody's position is shown.
        each = "; ".join(f"rank {b.rank} on {b.host}: {b.waits} in step {b.step}" for b in heartbeats.values())
        text = (
            f"all ranks wait for one another and nothing arrives {waited}: "
            f"the network between them is cut, or they are in different collectives ({each})"
        )
        return HangVerdict(text, answering[0], answering, working, [])
    lines = []
    for rank in missing:
        if rank in working:
            state = "it is busy or stuck in its own work"
        else:
            state = f"it has {_silence(silent[rank])}: its process is stopped, or its machine or network is gone"
        name = heartbeats.get(rank, f"rank {rank}")
        where = f"{observer.status.collective} of {observer.status.position}"
        lines.append(f"{name} has not come to {where} {waited}; {state}")
    return HangVerdict("\n".join(lines), answering[0], answering, working, [r for r in silent if r not in answering])


def ended_verdict(observer: Observer, exit_reason: str) -> HangVerdict:
    """Another rank has ended by an error of its own and said why."""
    where = f"{observer.status.collective} of {observer.status.position}"
    return HangVerdict(f"{exit_reason}; the others wait for it in {where}", observer.rank, [observer.rank], [], [])


def store_lost_verdict(observer: Observer, host: Heartbeat | None, address: str, silent_seconds: float) -> HangVerdict:
    """The store does not answer; `host` is the last heartbeat of rank 0, which hosts it without torchrun."""
    name = "torchrun" if launcher_hosts_store() else str(host or "rank 0")
    text = (
        f"{name}, which hosts the store of the ranks at {address}, has not answered for {silent_seconds:.0f} s, "
        f"and rank {observer.rank} waits in {observer.status.collective} of {observer.status.position} "
        f"for {observer.waited_seconds:.0f} s: "
        f"that process is stopped, or the network between it and {socket.gethostname()} is cut"
    )
    return HangVerdict(text, observer.rank, [], [], [])


def _silence(seconds: float) -> str:
    return "never answered" if seconds == float("inf") else f"not answered for {seconds:.0f} s or more"


def dump_stacks(rank: int, status: RankStatus, waited_seconds: float) -> str:
    """Write stacks of all threads and the last collectives into the run's logs, or the stacks to stderr.

    Return the main thread's innermost frames, as text.
    """
    doing = f"waits in {status.collective} for {waited_seconds:.0f} s" if status.waiting else "in its own work"
    name = f"rank {rank}, host {socket.gethostname()}, pid {os.getpid()}"
    head = f"{name}, {status.position}, {time.strftime('%Y-%m-%d %H:%M:%S %z')}: {doing}\n"
    if status.log_dir is None:
        sys.stderr.write(head)
        sys.stderr.flush()
        # faulthandler writes to a file descriptor, which a replaced sys.stderr need not have.
        faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
    else:
        status.log_dir.mkdir(parents=True, exist_ok=True)
        with (status.log_dir / f"stacks-rank-{rank}.txt").open("a") as file:
            file.write(head)
            file.flush()  # faulthandler writes past Python's buffer
            faulthandler.dump_traceback(file, all_threads=True)
        _write_collectives(status.log_dir / f"collectives-rank-{rank}.json")
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    frames = traceback.extract_stack(frame)[-_STACK_FRAMES:] if frame else []
    return "\n".join(f"  {f.filename}:{f.lineno} in {f.name}" for f in reversed(frames))


def _write_collectives(path: Path) -> None:
    """Write what torch's flight recorders of gloo and NCCL hold: the last collectives and how far each came."""
    for name, prefix in (("_dump_fr_trace_json", ""), ("_dump_nccl_trace_json", "nccl-")):
        # The JSON dumps are internals of torch; its public dump is a pickle.
        records = getattr(torch._C._distributed_c10d, name, None)
        if records is not None:
            path.with_name(f"{prefix}{path.name}").write_bytes(records())
