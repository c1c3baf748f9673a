"""Ranks talking to each other. All process-group calls of the package; alone, everything is the identity."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from collagan_dist.contract import World
from collagan_dist.errors import ClusterError, CollaganError
from collagan_dist.runtime.world import rendezvous

T = TypeVar("T")


class Group:
    """All ranks of a run. Collective methods must be called by every rank."""

    def __init__(self, world: World, device: torch.device, timeout: float) -> None:
        self.world, self.device = world, device
        self._pending: tuple[Any, torch.Tensor] | None = None
        if world.size > 1:
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            try:
                dist.init_process_group(
                    backend, rank=world.rank, world_size=world.size, timeout=timedelta(seconds=timeout)
                )
            except (RuntimeError, ValueError) as error:
                raise ClusterError(
                    f"rank {world.rank} of {world.size} on {socket.gethostname()} could not meet the others at {rendezvous()} within {timeout:g} s; "
                    f"check that host and port are reachable from every node ({str(error).splitlines()[0]})"
                ) from None

    def close(self) -> None:
        if self.world.size > 1:
            dist.destroy_process_group()

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The average over ranks, elementwise; in place."""
        return values if self.world.size == 1 else self._sum(values).div_(self.world.size)

    def sum_soon(self, *values: float) -> list[float]:
        """Sums over ranks of what they said one call ago: the round of this call travels while the next step computes.

        Every rank gets the same answer at the same call, without waiting for anybody.
        """
        if self.world.size == 1:
            return list(values)
        answer = [0.0] * len(values)
        if self._pending is not None:
            work, said = self._pending
            with _together():
                work.wait()
            answer = said.tolist()
        said = torch.tensor(values, dtype=torch.float64)
        with _together():
            self._pending = (dist.all_reduce(said, async_op=True), said)
        return answer

    def gather(self, value: T) -> list[T]:
        """Every rank's value, by rank."""
        if self.world.size == 1:
            return [value]
        values: list[Any] = [None] * self.world.size
        with _together():
            dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """Rank 0's value."""
        if self.world.size == 1:
            return value
        box: list[Any] = [value]
        with _together():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def on_main(self, work: Callable[[], T]) -> T:
        """Rank 0's result of `work`, which only rank 0 does; its error is raised on every rank, so nobody waits for ever."""
        result: tuple[T | None, CollaganError | None] = (None, None)
        own: Exception | None = None
        if self.world.is_main:
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
            failure.shared = True
            raise failure
        return value  # type: ignore[return-value]

    def broadcast_tensors(self, tensors: list[torch.Tensor]) -> None:
        """Rank 0's contents into everybody's tensors."""
        if self.world.size > 1:
            with _together():
                for tensor in tensors:
                    dist.broadcast(tensor, src=0)

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        with _together():
            dist.all_reduce(values)
        return values


@contextmanager
def _together() -> Iterator[None]:
    """A collective operation fails when another rank is gone; that rank says why, this one says that it is not to blame."""
    try:
        yield
    except RuntimeError as error:
        raise ClusterError(f"another rank is gone or hangs; see its message ({str(error).splitlines()[0]})") from error
