"""Collective operations between the ranks of a run. With one rank each of them is the identity."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from collagan_dist.distributed import messages
from collagan_dist.distributed.hang_detector import HangDetector
from collagan_dist.distributed.rank_status import RankStatus
from collagan_dist.distributed.rendezvous import DOCTOR_HINT, rendezvous
from collagan_dist.distributed.stopwatch import Stopwatch
from collagan_dist.distributed.world import rendezvous_address
from collagan_dist.errors import ClusterError, CollaganError
from collagan_dist.types import World

T = TypeVar("T")

# torch's own limit is this much longer than runtime.timeout: the hang detector names the missing rank first.
LIBRARY_TIMEOUT_MARGIN_SECONDS = 30
_MIN_CONNECT_SECONDS = 5.0
# While rank 0 waits for something else, the other ranks hear of it this often.
_POLL_SECONDS = 20.0
_RECORDED_COLLECTIVES = "2000"


class Group:
    """All ranks of a run. Every rank calls the collective methods, in the same order.

    store       The key-value store of the rendezvous; None with one rank.
    status      What this rank is doing; training sets its step and its log folder.
    stopwatch   Measures this rank's own work, without the time in which it waits for others.
    """

    def __init__(
        self, world: World, device: torch.device, timeout: float = 300, rendezvous_timeout: float = 120
    ) -> None:
        self.world, self.device, self.timeout, self.rendezvous_timeout = world, device, timeout, rendezvous_timeout
        self.store: dist.Store | None = None
        self.status = RankStatus()
        self.stopwatch = Stopwatch(device)
        self._hang_detector: HangDetector | None = None
        self._others_failed = False
        self._pending: tuple[Any, torch.Tensor] | None = None
        if world.size > 1:
            # torch's flight recorder, read when ranks hang, must be on before the process group exists.
            os.environ.setdefault("TORCH_FR_BUFFER_SIZE", _RECORDED_COLLECTIVES)
            self.store = self._init_process_group(rendezvous_timeout)
            self._hang_detector = self._watch(self.store)

    def _watch(self, store: dist.Store) -> HangDetector | None:
        return HangDetector(self.world, store, self.status, self.timeout, self.rendezvous_timeout)

    def _init_process_group(self, timeout: float) -> dist.Store:
        """Join the other ranks. Raises ClusterError if they do not come in time."""
        begin, world = time.monotonic(), self.world
        meeting = rendezvous(world, timeout)
        meeting.choose_interface()  # before gloo connects the ranks
        left = max(_MIN_CONNECT_SECONDS, timeout - (time.monotonic() - begin))
        try:
            dist.init_process_group(
                _backend(meeting.store, world, self.device),
                store=dist.PrefixStore("group", meeting.store),
                rank=world.rank,
                world_size=world.size,
                timeout=timedelta(seconds=left),
            )
        except (RuntimeError, ValueError) as error:
            address = ":".join(map(str, rendezvous_address()))
            raise ClusterError(
                f"rank {world.rank} of {world.size} on {socket.gethostname()} reached {address}, but not every other rank "
                f"({str(error).splitlines()[0]}). Ranks connect to one another on any port: check firewalls between nodes, "
                f"and GLOO_SOCKET_IFNAME ({os.environ.get('GLOO_SOCKET_IFNAME', 'not set')}); {DOCTOR_HINT}"
            ) from None
        # The timeout above was for connecting; collectives have another one, which torch sets by this function only.
        limit = max(self.timeout, self.rendezvous_timeout) + LIBRARY_TIMEOUT_MARGIN_SECONDS
        distributed_c10d._set_pg_timeout(timedelta(seconds=limit))
        return meeting.store

    def __deepcopy__(self, memo: dict[int, Any]) -> Group:
        return self  # the averaged generator is a deep copy, whose SyncBatchNorm layers refer to the same ranks

    def close(self, error: BaseException | None = None) -> None:
        """Leave the group. An error of this rank alone is told to the others."""
        if self.world.size > 1:
            known = self._others_failed or getattr(error, "raised_on_all_ranks", False)
            own = isinstance(error, Exception) and not known
            assert self._hang_detector is not None
            self._hang_detector.stop(self._exit_reason(error) if own else None)
            dist.destroy_process_group()

    def __enter__(self) -> Group:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(error)

    def _exit_reason(self, error: BaseException | None) -> str:
        name = "" if isinstance(error, CollaganError) else f"{type(error).__name__}: "
        return f"rank {self.world.rank} on {socket.gethostname()} ended: {name}{(str(error).splitlines() or [''])[0]}"

    def collective(self, what: str) -> AbstractContextManager[None]:
        """Wrap every wait for other ranks. `what` names it in messages; raises ClusterError if other ranks caused a failure."""
        # A single process waits for nobody, so its stopwatch runs on.
        return self._collective(what) if self.world.size > 1 else nullcontext()

    @contextmanager
    def _collective(self, what: str) -> Iterator[None]:
        counting = self.stopwatch.pause()
        try:
            with self.status.waiting_in(what):
                yield
        except RuntimeError as error:
            if not _caused_by_others(error):
                raise
            self._others_failed = True
            why = self._hang_detector.explain() if self._hang_detector else "see its message"
            raise ClusterError(
                f"rank {self.world.rank}: another rank is gone or hangs, in {what}; {why} ({str(error).splitlines()[0]})"
            ) from error
        finally:
            if counting:
                self.stopwatch.resume()

    def barrier(self, what: str) -> None:
        """Return when every rank has called it."""
        if self.world.size > 1:
            with self.collective(what):
                # Not dist.barrier: on GPUs that is a kernel, and here processes are to wait.
                dist.all_reduce(torch.zeros(1))

    # Tensors

    def all_reduce_mean(self, values: torch.Tensor) -> torch.Tensor:
        """Average over ranks, elementwise and in place."""
        if self.world.size == 1:
            return values
        with self.collective("a mean"):
            dist.all_reduce(values)
            self.synchronize()
        return values.div_(self.world.size)

    def all_reduce_and(self, value: torch.Tensor, what: str = "the verdict on an update") -> torch.Tensor:
        """Return elementwise whether booleans on the device are true on every rank; on the device, without waiting for it.

        `what` names the exchange where ranks are reported as hanging in it.
        """
        if self.world.size == 1:
            return value
        flags = value.to(torch.float32)  # the minimum of zeros and ones is their AND
        with self.collective(what):
            dist.all_reduce(flags, dist.ReduceOp.MIN)
        return flags > 0

    def broadcast_tensors(self, tensors: list[torch.Tensor]) -> None:
        """Copy rank 0's contents into the tensors of all ranks."""
        if self.world.size > 1:
            with self.collective("rank 0's tensors"):
                for tensor in tensors:
                    dist.broadcast(tensor, src=0)
                self.synchronize()

    def synchronize(self) -> None:
        """Wait for the device."""
        # A GPU's collectives return before they are done. Waiting here, inside `collective`, lets the hang detector see it.
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()

    # Numbers and objects, through the CPU

    def all_reduce_sum_deferred(self, *values: float) -> list[float]:
        """Return the sums over ranks of the values of the previous call, zeros at the first; of this call if there is one rank.

        The reduction runs while the next step computes, so nobody waits. All ranks get equal answers at the same call.
        """
        if self.world.size == 1:
            return list(values)
        sums = [0.0] * len(values)
        if self._pending is not None:
            work, reduced = self._pending
            with self.collective("the sum of flags"):
                work.wait()
            sums = reduced.tolist()
        own = torch.tensor(values, dtype=torch.float64)
        with self.collective("the sum of flags"):
            self._pending = (dist.all_reduce(own, async_op=True), own)
        return sums

    def all_gather_float(self, value: float) -> list[float]:
        """Return every rank's number, by rank."""
        if self.world.size == 1:
            return [value]
        # A sum of one-hot vectors: one small collective, where `all_gather` takes two.
        numbers = torch.zeros(self.world.size, dtype=torch.float64)
        numbers[self.world.rank] = value
        with self.collective("gathering"):
            dist.all_reduce(numbers)
        return numbers.tolist()

    def all_gather(self, value: T) -> list[T]:
        """Return every rank's value, by rank: what messages.py can say, so tuples of other ranks are lists."""
        if self.world.size == 1:
            return [value]
        own = _as_bytes(messages.encode(value))
        sizes = [int(size) for size in self.all_gather_float(len(own))]
        _check_size(max(sizes))
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in sizes]
        with self.collective("gathering"):
            dist.all_gather(parts, padded)
        return [messages.decode(_bytes_of(part[:size])) for part, size in zip(parts, sizes, strict=True)]

    def broadcast(self, value: T) -> T:
        """Return rank 0's value: what messages.py can say, so tuples are lists."""
        if self.world.size == 1:
            return value
        own = _as_bytes(messages.encode(value)) if self.world.is_rank0 else torch.empty(0, dtype=torch.uint8)
        with self.collective("rank 0's message"):
            size = torch.tensor([len(own)])
            dist.broadcast(size, src=0)
            _check_size(int(size))
            message = own if self.world.is_rank0 else torch.empty(int(size), dtype=torch.uint8)
            dist.broadcast(message, src=0)
        return messages.decode(_bytes_of(message))

    def on_rank0(self, work: Callable[[], T]) -> T:
        """Call `work` on rank 0 only and return its result on all ranks. Its error is raised on all ranks."""
        if self.world.size == 1:
            return work()
        said: dict[str, Any] = {}
        own: Exception | None = None
        if self.world.is_rank0:
            try:
                said = {"value": work()}
                messages.encode(said)
            except CollaganError as error:
                own, said = error, {"error": messages.encode_error(error)}
            except Exception as error:
                # An unexpected error keeps its traceback on rank 0. The others only learn of it.
                own, said = error, {"error": messages.encode_error(ClusterError(f"rank 0 failed: {error!r}"))}
        # Sent even after an error, or the other ranks would wait for ever.
        heard = self.broadcast(said)
        if "error" not in heard:
            return heard["value"]
        failure = own or messages.decode_error(heard["error"])
        if isinstance(failure, CollaganError):
            failure.raised_on_all_ranks = True
        raise failure

    def on_rank0_for_long(self, work: Callable[[], T]) -> T:
        """As `on_rank0`, of work that may wait for others than ranks: it runs in a thread, and is no hang."""
        if self.world.size == 1:
            return work()
        future: Future[T] = Future()
        if self.world.is_rank0:
            # Not an executor's thread, which the interpreter would wait for at its end.
            threading.Thread(target=_fulfil, args=(future, work), daemon=True).start()
        self.wait_on_rank0(future)
        return self.on_rank0(future.result)

    def wait_on_rank0(self, future: Future[Any] | None) -> None:
        """Return when rank 0's future is done, if it has one. The others hear of it in rounds, so that it is no hang."""
        # A quarter of the hang limit, so that what is slow on rank 0 is never taken for a hanging rank 0.
        seconds = min(_POLL_SECONDS, self.timeout / 4)
        while not self.on_rank0(lambda: future is None or not wait_for([future], seconds).not_done):
            pass


def _fulfil(future: Future[T], work: Callable[[], T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)


def _as_bytes(message: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(message), dtype=torch.uint8)


def _bytes_of(message: torch.Tensor) -> bytes:
    return message.numpy().tobytes()


def _check_size(size: int) -> None:
    if not 0 < size <= messages.MAX_BYTES:
        raise ClusterError(f"another rank announces a message of {size} bytes; is something else on its ports?")


def _backend(store: dist.Store, world: World, device: torch.device) -> str:
    if device.type == "cpu":
        return "gloo"
    store.set(f"gpu/{world.rank}", f"{socket.gethostname()}/{torch.cuda.get_device_properties(device).uuid}")
    gpus = store.multi_get([f"gpu/{rank}" for rank in range(world.size)])
    # NCCL refuses two ranks on one GPU.
    return "cpu:gloo,cuda:nccl" if len(set(gpus)) == world.size else "gloo"


def _caused_by_others(error: RuntimeError) -> bool:
    # gloo raises plain RuntimeErrors; only their text tells a lost peer from an error of our own inside the block.
    words = ("gloo", "nccl", "connection closed", "connection reset", "connection refused", "timed out", "tcpstore")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words)
