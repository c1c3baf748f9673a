"""Ranks talking to each other; alone, everything is the identity."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from collagan_dist.distributed.hang_detector import HangDetector, enable_flight_recorder
from collagan_dist.distributed.rank_status import RankStatus
from collagan_dist.distributed.rendezvous import HELP, rendezvous
from collagan_dist.distributed.stopwatch import Stopwatch
from collagan_dist.distributed.world import rendezvous_address
from collagan_dist.errors import ClusterError, CollaganError
from collagan_dist.types import World

T = TypeVar("T")


# A hang is named by the ranks themselves (runtime.timeout); the library's own limit comes this much later, in seconds.
LIBRARY_TIMEOUT_MARGIN_SECONDS = 30


class Group:
    """All ranks of a run. Collective methods must be called by every rank, in the same order.

    `store` is the key-value store through which the ranks met, None alone. `status` says what this rank does; training sets its
    step and its folder for logs. `stopwatch` takes the time of this rank's own work.
    """

    def __init__(
        self, world: World, device: torch.device, timeout: float = 300, rendezvous_timeout: float = 120
    ) -> None:
        self.world, self.device, self.timeout, self.rendezvous_timeout = world, device, timeout, rendezvous_timeout
        self.store: dist.Store | None = None
        self.status = RankStatus()
        self.stopwatch = Stopwatch(device)
        self._watch: HangDetector | None = None
        self._left_behind = False
        self._pending: tuple[Any, torch.Tensor] | None = None
        if world.size > 1:
            enable_flight_recorder()
            self.store = self._meet(rendezvous_timeout)
            self._watch = HangDetector(world, self.store, self.status, timeout, rendezvous_timeout)

    def _meet(self, timeout: float) -> dist.Store:
        """Join the other ranks. Raises ClusterError when they are not there in time."""
        begin, world = time.monotonic(), self.world
        meeting = rendezvous(world, timeout)
        meeting.choose_interface()
        left = max(5.0, timeout - (time.monotonic() - begin))
        try:
            dist.init_process_group(
                _backend(meeting.store, world, self.device),
                store=dist.PrefixStore("group", meeting.store),
                rank=world.rank,
                world_size=world.size,
                timeout=timedelta(seconds=left),
            )
            distributed_c10d._set_pg_timeout(
                timedelta(seconds=max(self.timeout, self.rendezvous_timeout) + LIBRARY_TIMEOUT_MARGIN_SECONDS)
            )
        except (RuntimeError, ValueError) as error:
            raise ClusterError(
                f"rank {world.rank} of {world.size} on {socket.gethostname()} reached {':'.join(map(str, rendezvous_address()))}, but not "
                f"every other rank ({str(error).splitlines()[0]}). Ranks connect to one another on any port: check firewalls between "
                f"nodes, and GLOO_SOCKET_IFNAME ({os.environ.get('GLOO_SOCKET_IFNAME', 'not set')}); {HELP}"
            ) from None
        return meeting.store

    def __deepcopy__(self, memo: dict[int, Any]) -> Group:
        return self  # a copy of a network is of the same ranks

    def close(self, error: BaseException | None = None) -> None:
        """Leave; by an error of this rank alone, the others are told of it."""
        if self.world.size > 1:
            alone = isinstance(error, Exception) and not self._left_behind and not getattr(error, "shared", False)
            assert self._watch is not None
            self._watch.stop(self._last_words(error) if alone else None)
            dist.destroy_process_group()

    def __enter__(self) -> Group:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(error)

    def _last_words(self, error: BaseException | None) -> str:
        name = "" if isinstance(error, CollaganError) else f"{type(error).__name__}: "
        return f"rank {self.world.rank} on {socket.gethostname()} ended: {name}{(str(error).splitlines() or [''])[0]}"

    def all_reduce_mean(self, values: torch.Tensor) -> torch.Tensor:
        """The average over ranks, elementwise; in place."""
        return values if self.world.size == 1 else self._sum(values).div_(self.world.size)

    def all_reduce_and(self, value: torch.Tensor) -> bool:
        """Whether `value`, a boolean scalar on the device, is true on every rank. Waits for the device."""
        if self.world.size == 1:
            return bool(value)
        flag = value.to(torch.float32)
        with self.collective("the verdict on a phase"):
            dist.all_reduce(flag, dist.ReduceOp.MIN)
            return bool(flag)

    @contextmanager
    def collective(self, what: str) -> Iterator[None]:
        """Around whatever waits for other ranks: `status` says so, and a failure that they caused is a ClusterError."""
        counting = self.stopwatch.pause()
        try:
            with self.status.waiting_in(what):
                yield
        except RuntimeError as error:
            if self.world.size == 1 or not _by_others(error):
                raise
            self._left_behind = True
            why = self._watch.explain() if self._watch else "see its message"
            raise ClusterError(
                f"rank {self.world.rank}: another rank is gone or hangs, in {what}; {why} ({str(error).splitlines()[0]})"
            ) from error
        finally:
            if counting:
                self.stopwatch.resume()

    def all_reduce_sum_deferred(self, *values: float) -> list[float]:
        """Sums over ranks of what they said one call ago: the round of this call travels while the next step computes.

        Every rank gets the same answer at the same call, without waiting for anybody.
        """
        if self.world.size == 1:
            return list(values)
        answer = [0.0] * len(values)
        if self._pending is not None:
            work, said = self._pending
            with self.collective("the sum of flags"):
                work.wait()
            answer = said.tolist()
        said = torch.tensor(values, dtype=torch.float64)
        with self.collective("the sum of flags"):
            self._pending = (dist.all_reduce(said, async_op=True), said)
        return answer

    def barrier(self, what: str) -> None:
        """Return when every rank has come here."""
        if self.world.size > 1:
            with self.collective(what):
                dist.all_reduce(torch.zeros(1))

    def all_gather_float(self, value: float) -> list[float]:
        """Every rank's number, by rank, in one small round."""
        if self.world.size == 1:
            return [value]
        numbers = torch.zeros(self.world.size, dtype=torch.float64)
        numbers[self.world.rank] = value
        with self.collective("gathering"):
            dist.all_reduce(numbers)
        return numbers.tolist()

    def all_gather(self, value: T) -> list[T]:
        """Every rank's value, by rank."""
        if self.world.size == 1:
            return [value]
        values: list[Any] = [None] * self.world.size
        with self.collective("gathering"):
            dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """Rank 0's value."""
        if self.world.size == 1:
            return value
        box: list[Any] = [value]
        with self.collective("rank 0's word"):
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def on_rank0(self, work: Callable[[], T]) -> T:
        """Rank 0's result of `work`, which only rank 0 does; its error is raised on every rank, so nobody waits for ever."""
        result: tuple[T | None, CollaganError | None] = (None, None)
        own: Exception | None = None
        if self.world.is_rank0:
            try:
                result = (work(), None)
            except CollaganError as error:
                result = (None, error)
            except Exception as error:  # ours to see whole, the others' to know of
                own = error
                result = (None, ClusterError(f"rank 0 failed: {error!r}"))
        value, failure = self.broadcast(result)
        if own is not None:
            raise own
        if failure is not None:
            failure.raised_on_all_ranks = True
            raise failure
        return value  # type: ignore[return-value]

    def broadcast_tensors(self, tensors: list[torch.Tensor]) -> None:
        """Rank 0's contents into everybody's tensors."""
        if self.world.size > 1:
            with self.collective("rank 0's tensors"):
                for tensor in tensors:
                    dist.broadcast(tensor, src=0)
                self._wait_for_device()

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        with self.collective("a mean"):
            dist.all_reduce(values)
            self._wait_for_device()
        return values

    def _wait_for_device(self) -> None:
        """A GPU's collectives come back before they are done: wait here, where a hang is seen, not wherever their result is read."""
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()


def _backend(store: dist.Store, world: World, device: torch.device) -> str:
    """NCCL between GPUs; gloo between CPUs, and where any ranks share a GPU, which NCCL refuses."""
    if device.type == "cpu":
        return "gloo"
    store.set(f"gpu/{world.rank}", f"{socket.gethostname()}/{torch.cuda.get_device_properties(device).uuid}")
    gpus = store.multi_get([f"gpu/{rank}" for rank in range(world.size)])
    return "cpu:gloo,cuda:nccl" if len(set(gpus)) == world.size else "gloo"


def _by_others(error: RuntimeError) -> bool:
    """Whether another rank or the network is what failed here."""
    words = ("gloo", "nccl", "connection closed", "connection reset", "connection refused", "timed out", "tcpstore")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words)
