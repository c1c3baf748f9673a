"""The DDP engine: torch's DistributedDataParallel averages gradients over ranks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel as DDP

from collagan_dist.distributed.engine import Engine, Learner

# torch 2.13 renamed the switch.
_BUFFER_SYNC = (
    "forward_sync_buffers" if "forward_sync_buffers" in inspect.signature(DDP).parameters else "broadcast_buffers"
)
_NO_BUFFER_SYNC: dict[str, Any] = {_BUFFER_SYNC: False}


class DDPLearner(Learner):
    """A learner whose gradient DDP averages over ranks."""

    def wrap(self) -> Callable[..., Any]:
        device = self.engine.device
        devices = [device.index or 0] if device.type == "cuda" else None
        # DDP imports it. That takes seconds, of which ranks need not hear in a collective.
        import torch._dynamo  # noqa: F401

        with self.engine.group.collective("the start of the networks"):
            # Batch statistics are rank 0's where they matter (checkpoint, evaluation), and are shared only then. Sharing them in
            # a forward pass would overwrite statistics that an earlier pass of the same step still needs for its backward pass.
            self.ddp = DDP(self.module, device_ids=devices, gradient_as_bucket_view=True, **_NO_BUFFER_SYNC)
        self._buckets_rebuilt = False
        return self.engine.compiled(self.ddp, "networks")

    def apply(self, lr: float | torch.Tensor, factor: torch.Tensor | None, finite: torch.Tensor) -> None:
        super().apply(lr, factor, finite)
        # Once, after the first backward pass, DDP rebuilds its buckets in the order of that pass, for which it waits for rank 0.
        # It would do so inside its next forward pass, where the hang detector does not see that this rank waits.
        if not self._buckets_rebuilt:
            with self.engine.group.collective("the order of the gradients"):
                self._buckets_rebuilt = self.ddp.reducer._rebuild_buckets()

    def set_grad_sync(self, last: bool) -> None:
        self.ddp.require_backward_grad_sync = last  # what DDP.no_sync() sets


class DDPEngine(Engine):
    """Training on several ranks with DDP."""

    learner_type = DDPLearner
