"""One rank of a large world, alone: torch's fake process group answers every collective at once, with this rank's own values."""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from collagan_dist.config.tree import Runtime
from collagan_dist.distributed.ddp import DDPEngine, DDPLearner
from collagan_dist.distributed.group import Group
from collagan_dist.types import World

T = TypeVar("T")


class RehearsalGroup(Group):
    """The group of a rank whose others do not exist. `collectives` counts what it would have waited for, by name."""

    def __init__(self, world: World, device: torch.device) -> None:
        self.collectives: Counter[str] = Counter()
        super().__init__(world, device)

    def _init_process_group(self, timeout: float) -> dist.Store:
        # Registers the backend "fake".
        from torch.testing._internal.distributed.fake_pg import FakeStore

        store = FakeStore()
        dist.init_process_group("fake", store=store, rank=self.world.rank, world_size=self.world.size)
        return store

    def _watch(self, store: dist.Store) -> None:
        """There is nobody to watch."""

    def close(self, error: BaseException | None = None) -> None:
        if self.world.size > 1:
            dist.destroy_process_group()

    def collective(self, what: str) -> AbstractContextManager[None]:
        self.collectives[what] += 1
        return super().collective(what)

    def all_gather(self, value: T) -> list[T]:
        return [value] * self.world.size

    def all_gather_float(self, value: float) -> list[float]:
        return [value] * self.world.size

    def broadcast(self, value: T) -> T:
        return value

    def on_rank0(self, work: Callable[[], T]) -> T:
        return work()


class _RehearsalLearner(DDPLearner):
    def wrap(self) -> Callable[..., Any]:
        forward = super().wrap()
        # The fake group's own reduction does not come back to the reducer.
        dist._register_comm_hook(self.reducer, None, _reduced)
        return forward


class RehearsalEngine(DDPEngine):
    """DDP whose averages are this rank's own gradients; never compiled."""

    def __init__(self, runtime: Runtime, group: Group) -> None:
        super().__init__(runtime, group)
        self.learner_type = _RehearsalLearner


def _reduced(state: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done
