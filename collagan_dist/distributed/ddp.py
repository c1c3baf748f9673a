"""The DDP engine: gradients averaged over ranks by torch's DistributedDataParallel."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel as DDP

from collagan_dist.distributed.engine import Engine, Learner

# torch 2.13 renamed the switch.
_NO_SYNC = (
    "forward_sync_buffers" if "forward_sync_buffers" in inspect.signature(DDP).parameters else "broadcast_buffers"
)
_RANK_BUFFERS: dict[str, Any] = {_NO_SYNC: False}


class DDPLearner(Learner):
    """Gradients averaged over ranks (torch DistributedDataParallel)."""

    def wrap(self) -> Callable[..., Any]:
        # Buffers are rank 0's by agreement and are shared when they matter (checkpoint, evaluation), not every step:
        # syncing them inside forward would touch batch statistics that an earlier pass of the same step still needs.
        device = self.engine.device
        devices = [device.index or 0] if device.type == "cuda" else None
        import torch._dynamo  # noqa: F401  DDP needs it: seconds of this rank's own

        with self.engine.group.collective("the start of the networks"):
            self.ddp = DDP(self.module, device_ids=devices, gradient_as_bucket_view=True, **_RANK_BUFFERS)
        self._in_order = False
        return self.engine.compiled(self.ddp)

    def __call__(self, *args: Any) -> Any:
        # Once, after the first backward pass, DDP puts its buckets in the order of that pass, which waits for rank 0's word. It
        # would do so in its forward pass, where nobody watches.
        if not self._in_order and torch.is_grad_enabled():
            with self.engine.group.collective("the order of the gradients"):
                self._in_order = self.ddp.reducer._rebuild_buckets()
        return self.forward(*args)

    def set_grad_sync(self, last: bool) -> None:
        self.ddp.require_backward_grad_sync = last  # what DDP.no_sync() sets


class DDPEngine(Engine):
    learner_type = DDPLearner
