"""The DDP engine: the reducer of torch's DistributedDataParallel averages gradients over ranks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d
from torch.distributed.utils import _sync_module_states, _verify_param_shape_across_processes
from torch.nn.parallel import DistributedDataParallel as DDP

from collagan_dist.config.tree import Runtime
from collagan_dist.distributed.engine import Engine, Learner
from collagan_dist.distributed.group import Group

_FIRST_BUCKET_BYTES, _BUCKET_BYTES = 1 << 20, 25 << 20  # DDP's own: its first all-reduce starts early
# torch 2.13 renamed the switch.
_BUFFER_SYNC = (
    "forward_sync_buffers" if "forward_sync_buffers" in inspect.signature(DDP).parameters else "broadcast_buffers"
)
_NO_BUFFER_SYNC: dict[str, Any] = {_BUFFER_SYNC: False}


class DDPLearner(Learner):
    """A learner whose gradient DDP's reducer averages over ranks, a bucket at a time while the backward pass runs."""

    # Not by the class DDP: it imports torch.compile's compiler, which takes a CPU-second of each rank's start.

    reducer: Any
    _syncs = True

    def wrap(self) -> Callable[..., Any]:
        with self.engine.group.collective("the start of the networks"):
            ranks, tensors = distributed_c10d._get_default_group(), list[torch.Tensor](self.parameters)
            _verify_param_shape_across_processes(ranks, tensors)
            # All ranks begin with rank 0's parameters and batch statistics. Later only a checkpoint and an evaluation share statistics:
            # sharing them in a forward pass would overwrite those that an earlier pass of the step needs for its backward pass.
            _sync_module_states(self.module, ranks, 10 * _BUCKET_BYTES, 0, ())
            buckets, limits = dist._compute_bucket_assignment_by_size(tensors, [_FIRST_BUCKET_BYTES, _BUCKET_BYTES])
            # Reversed: gradients come in about the opposite order of the parameters.
            self.reducer = dist.Reducer(tensors, buckets[::-1], limits[::-1], ranks, gradient_as_bucket_view=True)
        self._buckets_rebuilt = False
        return self._forward

    def _forward(self, *args: Any) -> Any:
        output = self.module(*args)
        if self._syncs and torch.is_grad_enabled():
            self.reducer.prepare_for_backward([])
        return output

    def apply(self, lr: float | torch.Tensor, factor: torch.Tensor | None, finite: torch.Tensor) -> None:
        super().apply(lr, factor, finite)
        # Once, after the first backward pass, the buckets are rebuilt in the order of that pass, for which ranks wait for rank 0.
        if not self._buckets_rebuilt:
            with self.engine.group.collective("the order of the gradients"):
                self._buckets_rebuilt = self.reducer._rebuild_buckets()

    def set_grad_sync(self, last: bool) -> None:
        self._syncs = last


class CompiledDDPLearner(DDPLearner):
    """A learner for `runtime.compile`: torch.compile knows the class DDP and cuts its graphs between buckets."""

    def wrap(self) -> Callable[..., Any]:
        device = self.engine.device
        devices = [device.index or 0] if device.type == "cuda" else None
        # DDP imports it. That takes a second, of which ranks need not hear in a collective.
        import torch._dynamo  # noqa: F401

        with self.engine.group.collective("the start of the networks"):
            self._ddp = DDP(self.module, device_ids=devices, gradient_as_bucket_view=True, **_NO_BUFFER_SYNC)
        self.reducer, self._buckets_rebuilt = self._ddp.reducer, False
        return self.engine.compiled(self._ddp, "networks")

    def set_grad_sync(self, last: bool) -> None:
        self._ddp.require_backward_grad_sync = last  # what DDP.no_sync() sets


class DDPEngine(Engine):
    """Training on several ranks with DDP."""

    def __init__(self, runtime: Runtime, group: Group) -> None:
        super().__init__(runtime, group)
        self.learner_type = CompiledDDPLearner if runtime.compile else DDPLearner
