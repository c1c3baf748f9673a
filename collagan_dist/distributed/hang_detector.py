"""Who is missing: every rank tells the others that it lives; when one waits too long, the missing rank is named and all end.

It needs no collective, since those are what hangs: ranks talk through the store in which they met, from a thread beside the main
thread. A library's own timeout names nobody, and its process group is of no use afterwards, so all ranks end (exit code 4);
who started them may start them again.
"""

from __future__ import annotations

import atexit
import faulthandler
import json
import os
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from collagan_dist.distributed.rank_status import RankStatus
from collagan_dist.distributed.world import launcher_hosts_store
from collagan_dist.errors import ClusterError
from collagan_dist.types import World

_BEAT = 5.0  # seconds between two signs of life, at most
_END = 4.0  # seconds between the verdict and the end, at most
_FRAMES = 4  # of a hanging rank's stack in the message
_RECORDS = "2000"  # collectives that torch's flight recorder keeps


def enable_flight_recorder() -> None:
    """Let torch remember its last collectives, to be written when ranks hang. Before the process group is made."""
    os.environ.setdefault("TORCH_FR_BUFFER_SIZE", _RECORDS)


@dataclass(frozen=True)
class Heartbeat:
    """What a rank says of itself: `count` rises by one each time; `waits` is what it waits for others in, None in its own work."""

    rank: int
    host: str
    pid: int
    count: int
    step: int | None
    waits: str | None

    def __str__(self) -> str:
        return f"rank {self.rank} (host {self.host}, pid {self.pid})"


class HangDetector:
    """One rank's threads. `_heartbeat_loop` has a connection to the store of its own and may be held up by it; `_guard` never is."""

    def __init__(
        self, world: World, store: dist.Store, status: RankStatus, timeout: float, rendezvous_timeout: float
    ) -> None:
        self.rank, self.size, self.status = world.rank, world.size, status
        self.timeout, self.rendezvous_timeout = timeout, rendezvous_timeout
        self.period = min(_BEAT, timeout / 4)
        self.tick = min(1.0, timeout / 10)
        self._place = _address(store)
        self._store = dist.PrefixStore("watch", store.clone())  # type: ignore[attr-defined]
        self._count = 0
        self._beats: dict[int, Heartbeat] = {}
        self._heard: dict[int, float] = {}  # when a rank's count was first seen to be what it is
        now = time.monotonic()
        self._answered = now  # the store, last
        self._looked = now  # this class, last
        self._awake = now  # this process, since
        self._ended: str | None = None
        self._last_words: str | None = None
        self._stopped = threading.Event()
        self.ending = threading.Lock()
        self._introduce()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._heartbeat_loop, self._guard)]
        for thread in self._threads:
            thread.start()
        atexit.register(self.stop)  # a thread inside the library at the interpreter's end would be an abort

    def stop(self, last_words: str | None = None) -> None:
        """The rank leaves; `last_words` tell the others why, when it is by an error of its own."""
        atexit.unregister(self.stop)
        if self._stopped.is_set():
            return
        self._last_words = last_words
        self._stopped.set()
        for thread in self._threads:
            thread.join(timeout=3)
        if last_words and self.rank == 0 and not launcher_hosts_store():
            time.sleep(2 * self.tick)  # the store ends with this process: let the others read it

    def explain(self) -> str:
        """Why another rank has left, as far as it is known. Does not return when this rank is ending already."""
        if self.ending.locked():
            time.sleep(2 * _END)
        with suppress(RuntimeError):
            self._look_for_last_words()
        return self._ended or "see its message"

    # What the threads do

    def _introduce(self) -> None:
        """Names are wanted before they are needed: the rank that keeps the store takes them along."""
        self._tell()
        with suppress(RuntimeError):  # a rank that is late is heard by `_heartbeat_loop`
            self._store.wait([f"beat/{rank}" for rank in range(self.size)], timedelta(seconds=self.period))
            self._listen()

    def _heartbeat_loop(self) -> None:
        told = listened = time.monotonic()
        while not self._stopped.wait(self.tick):
            now = time.monotonic()
            try:
                if now - told >= self.period:
                    self._tell()
                    told = now
                if self._store.check(["hang"]):
                    self._end(self._store.get("hang").decode())
                self._look_for_last_words()
                if (
                    self._ended is not None and self._waited() > self.period
                ):  # NCCL's collectives do not notice by themselves
                    self._end(self._store.compare_set("hang", "", self._verdict_on_the_dead()).decode())
                waited = self._waited()
                unknown = len(self._beats) < self.size
                if waited > self._limit() or unknown or (now - listened >= self.period and waited > self.period):
                    self._listen()
                    listened = now
                if self._waited() > self._limit():
                    self._end(self._store.compare_set("hang", "", self._verdict()).decode())
                self._answered = time.monotonic()
            except dist.DistNetworkError:  # it does not come back: the main thread's own error, or _guard, ends this
                return
            except RuntimeError:
                continue
        if self._last_words:
            with suppress(RuntimeError):
                self._store.compare_set("ended", "", self._last_words)

    def _guard(self) -> None:
        while not self._stopped.wait(self.tick):
            waited, silent = self._waited(), time.monotonic() - max(self._answered, self._awake)
            if waited > self._limit() + self.tick and silent > min(10, self.timeout / 2):
                self._end(self._verdict_without_store(silent))

    def _look_for_last_words(self) -> None:
        if self._ended is None and self._store.check(["ended"]):
            self._ended = self._store.get("ended").decode()

    def _limit(self) -> float:
        """How long the others may be waited for; at the start they import libraries, check shards, fetch them."""
        return self.timeout if self.status.step is not None else max(self.timeout, self.rendezvous_timeout)

    def _waited(self) -> float:
        """Seconds; those in which this process itself was stopped do not count, nor do those before."""
        waiting, now = self.status.waiting, time.monotonic()
        if now - self._looked > self.timeout / 2:
            self._awake = now
        self._looked = now
        return now - max(waiting[1], self._awake) if waiting else 0.0

    def _tell(self) -> None:
        self._count += 1
        waiting = self.status.waiting
        beat = Heartbeat(
            self.rank, socket.gethostname(), os.getpid(), self._count, self.status.step, waiting[0] if waiting else None
        )
        self._store.set(f"beat/{self.rank}", json.dumps(vars(beat)))

    def _listen(self) -> None:
        names = {rank: f"beat/{rank}" for rank in range(self.size)}
        if not self._store.check(list(names.values())):  # some have never spoken
            names = {rank: name for rank, name in names.items() if self._store.check([name])}
        now = time.monotonic()
        for rank, said in zip(names, self._store.multi_get(list(names.values())) if names else [], strict=True):
            beat = Heartbeat(**json.loads(said))
            if rank not in self._beats or self._beats[rank].count != beat.count:
                self._heard[rank] = now
            self._beats[rank] = beat

    # What is said

    def _verdict(self) -> str:
        """JSON: who is `missing` (rank and text), whether each `answers`, and who says it."""
        now = time.monotonic()
        silent = {r: now - self._heard[r] if r in self._heard else float("inf") for r in range(self.size)}
        answering = [rank for rank in silent if silent[rank] < self.timeout / 2 or rank == self.rank]
        working = [r for r in answering if r != self.rank and self._beats[r].waits is None]
        missing = [r for r in silent if r not in answering or r in working]
        return json.dumps(
            {
                "text": self._text(missing, working, silent),
                "working": working,
                "answering": answering,
                "speaker": answering[0],
            }
        )

    def _text(self, missing: list[int], working: list[int], silent: dict[int, float]) -> str:
        what, since = self.status.waiting or ("a collective", time.monotonic())
        waited = f"in {time.monotonic() - since:.0f} s (runtime.timeout is {self.timeout:g})"
        if not missing:
            each = "; ".join(f"rank {b.rank} on {b.host}: {b.waits} in step {b.step}" for b in self._beats.values())
            return f"all ranks wait for one another and nothing comes {waited}: the network between them is cut, or they are out of step ({each})"
        lines = []
        for rank in missing:
            name = self._beats.get(rank, f"rank {rank}")
            state = (
                "it is busy or stuck in its own work"
                if rank in working
                else f"it has {_for_how_long(silent[rank])}: its process is stopped, or its machine or network is gone"
            )
            lines.append(f"{name} has not come to {what} of {self.status.position} {waited}; {state}")
        return "\n".join(lines)

    def _verdict_on_the_dead(self) -> str:
        """A rank has ended by an error of its own, which it told."""
        what, _ = self.status.waiting or ("a collective", 0.0)
        text = f"{self._ended}; the others wait for it in {what} of {self.status.position}"
        return json.dumps({"text": text, "working": [], "answering": [self.rank], "speaker": self.rank})

    def _verdict_without_store(self, silent: float) -> str:
        keeper = "torchrun" if launcher_hosts_store() else str(self._beats.get(0, "rank 0"))
        what, since = self.status.waiting or ("a collective", time.monotonic())
        text = (
            f"{keeper}, which keeps the store of the ranks at {self._place}, has not answered for {silent:.0f} s, "
            f"and rank {self.rank} waits in {what} of {self.status.position} for {time.monotonic() - since:.0f} s: "
            f"that process is stopped, or the network between it and {socket.gethostname()} is cut"
        )
        return json.dumps({"text": text, "working": [], "answering": [], "speaker": self.rank})

    # The end

    def _end(self, verdict: str) -> None:
        """Write the stacks, say who is missing, end the process. Returns only when the other thread is at it."""
        if not self.ending.acquire(blocking=False):
            return
        timer = threading.Timer(_END, os._exit, [ClusterError.exit_code])  # should a disk or the store hold this up
        timer.daemon = True
        timer.start()
        hang: dict[str, Any] = json.loads(verdict)
        try:
            frames = self._dump()
            if hang["speaker"] == self.rank:
                self._speak(hang, frames)
            else:
                self._store.set(f"frames/{self.rank}", frames)
                self._await("said", 3.0)
                _say(f"rank {self.rank} ends: ranks hang, as rank {hang['speaker']} says")
        except (RuntimeError, OSError):
            pass
        os._exit(ClusterError.exit_code)

    def _speak(self, hang: dict[str, Any], frames: str) -> None:
        others = [rank for rank in hang["answering"] if rank != self.rank]
        deadline = time.monotonic() + 2.0
        here = [f"rank {self.rank} is at:\n{frames}"] if self.rank in hang["working"] else []
        for rank in others:
            came = self._await(f"frames/{rank}", deadline - time.monotonic())
            if came and rank in hang["working"]:
                here.append(f"rank {rank} is at:\n{self._store.get(f'frames/{rank}').decode()}")
        logs = f"{self.status.log_dir}/stacks-rank-*.txt" if self.status.log_dir else "above"
        _say("\n".join([hang["text"], *here, f"all ranks end; Python stacks of those that answer: {logs}"]))
        if others:
            self._store.set("said", "")
            time.sleep(0.3)  # the store may end with this process
        elif not hang["answering"]:
            time.sleep(2.0)  # nobody to ask: let the others come to the same end

    def _await(self, key: str, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not self._store.check([key]):
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    def _dump(self) -> str:
        """Stacks of all threads and the last collectives into the run's logs, or on standard error; the main thread's innermost frames."""
        waiting = self.status.waiting
        doing = f"waits in {waiting[0]} for {self._waited():.0f} s" if waiting else "in its own work"
        me = f"rank {self.rank}, host {socket.gethostname()}, pid {os.getpid()}"
        head = f"{me}, {self.status.position}, {time.strftime('%Y-%m-%d %H:%M:%S %z')}: {doing}\n"
        if self.status.log_dir is None:
            sys.stderr.write(head)
            sys.stderr.flush()
            faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
        else:
            self.status.log_dir.mkdir(parents=True, exist_ok=True)
            with (self.status.log_dir / f"stacks-rank-{self.rank}.txt").open("a") as file:
                file.write(head)
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
            _write_records(self.status.log_dir / f"collectives-rank-{self.rank}.json")
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        frames = traceback.extract_stack(frame)[-_FRAMES:] if frame else []
        return "\n".join(f"  {f.filename}:{f.lineno} in {f.name}" for f in reversed(frames))


def _address(store: dist.Store) -> str:
    while isinstance(store, dist.PrefixStore):
        store = store.underlying_store
    return f"{store.host}:{store.port}" if isinstance(store, dist.TCPStore) else "?"


def _write_records(path: Path) -> None:
    """torch's flight recorders, of gloo and of NCCL: the last collectives and how far each came. As JSON; torch's own dump is a pickle."""
    for name, backend in (("_dump_fr_trace_json", ""), ("_dump_nccl_trace_json", "nccl-")):
        records = getattr(torch._C._distributed_c10d, name, None)
        if records is not None:
            path.with_name(f"{backend}{path.name}").write_bytes(records())


def _for_how_long(silent: float) -> str:
    return "never answered" if silent == float("inf") else f"not answered for {silent:.0f} s or more"


def _say(text: str) -> None:
    print(f"collagan: {text}", file=sys.stderr, flush=True)
