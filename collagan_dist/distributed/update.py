"""An update: one optimizer step of some learners, and the verdict on whether it was finite, which stays on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from collagan_dist.distributed.engine import Engine, Learner, Tensors
from collagan_dist.distributed.group import Group


class Update:
    """One optimizer step of some learners: `backward` for each micro-batch inside the context, the step at its end.

    `side` names them in logs and errors. Where `earlier`, a boolean scalar on the device, is false the update changes nothing: an update
    before it was not finite.

    `values` are the logged scalars, means over micro-batches. After the context, `finite` is a boolean scalar on the device, equal
    on all ranks: this update, and those before it in the step, had finite losses and gradients on all ranks. Otherwise the update
    changed nothing. `flags`, for the host's Verdict: `finite`, whether this rank's losses were finite, and whether only the scaled
    gradient of fp16 was too large.
    """

    finite: torch.Tensor
    flags: torch.Tensor

    def __init__(
        self,
        engine: Engine,
        side: str,
        learners: Sequence[Learner],
        lr: float | torch.Tensor,
        micro_batches: int = 1,
        earlier: torch.Tensor | None = None,
    ) -> None:
        self.engine, self.side, self.learners, self.lr = engine, side, learners, lr
        self.values: Tensors = {}
        self._micro_batches, self._done, self._earlier = micro_batches, 0, earlier
        self._losses: list[torch.Tensor] = []  # of all micro-batches, on the device

    def __enter__(self) -> Update:
        for learner in self.learners:
            learner.zero_grad()
            learner.set_grad_sync(last=self._micro_batches == 1)
        return self

    def backward(self, losses: Sequence[torch.Tensor], values: Tensors | None = None) -> None:
        """Add the gradient of one micro-batch, with one loss per learner; `values` are logged. Collective on the last one."""
        self._losses += [loss.detach() for loss in losses]
        self._done += 1
        with self.engine.group.collective(f"the gradient of the {self.side}"):
            self.engine.backward(self.learners, [self._share(loss) for loss in losses])
        for learner in self.learners:  # before the next forward pass, in which DDP reads it
            learner.set_grad_sync(last=self._done >= self._micro_batches - 1)
        for name, value in (values or {}).items():
            share = self._share(value)
            self.values[name] = self.values[name] + share if name in self.values else share

    def _share(self, value: torch.Tensor) -> torch.Tensor:
        """Return what a micro-batch's value adds to the mean over all of them."""
        return value / self._micro_batches if self._micro_batches > 1 else value

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        """Do the step if all ranks have finite losses and gradients. Collective.

        What is decided stays on the device, so the host does not wait for it.
        """
        if error is not None:
            return
        # One length for all learners of a side: clipping keeps the direction of their common gradient.
        norms = [learner.norm() for learner in self.learners]
        norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
        self.values[f"gradient/{self.side}"] = norm
        are_finite = torch.stack([norm.to(self._losses[0]), *self._losses]).isfinite()
        own = torch.stack([are_finite.all(), are_finite[1:].all()])
        self.finite, losses = self.engine.group.all_reduce_and(own).unbind()
        # With finite losses it was the scaled gradient that overflowed.
        overflow = losses & ~self.finite
        if self._earlier is not None:
            self.finite, overflow = self.finite & self._earlier, overflow & self._earlier
        lowered = overflow
        for learner in self.learners:
            learner.apply(self.lr, _gradient_factor(learner, norm), self.finite)
            if learner.scale is not None:
                # Not before: the gradient is to be divided by what its loss was multiplied by.
                lowered = lowered & learner.scale.update(self.finite, overflow)
            else:
                lowered = torch.zeros_like(lowered)
        self.flags = torch.stack([self.finite, own[1], lowered])


@dataclass(frozen=True)
class Verdict:
    """Whether the updates of a step were finite on all ranks. All ranks have the same verdict.

    `side` is that of the first update that was not; it and those after it changed nothing. `overflow`: only the scaled gradient of
    fp16 was too large, and the scale has been lowered. `ranks` are the ranks whose loss was not finite.
    """

    side: str = ""
    finite: bool = True
    overflow: bool = False
    ranks: tuple[int, ...] = ()


class PendingVerdict:
    """A step's verdict on its way to the host. `read` it after the next step has been queued: then nobody waits."""

    def __init__(self, group: Group, sides: Sequence[str], flags: torch.Tensor) -> None:
        """`sides` are those of the step's updates, `flags` (updates, 3) theirs, as `Update` explains them."""
        self._group, self._sides = group, sides
        self._flags, self._arrived = to_host_soon(flags)

    def read(self) -> Verdict:
        """Return the verdict. Collective: after a failure the ranks tell one another whose loss it was."""
        with self._group.collective("the verdict on a step"):
            self._arrived()
        for side, (finite, own, overflow) in zip(self._sides, self._flags.tolist(), strict=True):
            if not finite:
                # One flag for all ranks in the usual case. Which rank it was is asked only after a failure.
                others = self._group.all_gather(own)
                return Verdict(
                    side, False, overflow, tuple(rank for rank, is_finite in enumerate(others) if not is_finite)
                )
        return Verdict()


def to_host_soon(value: torch.Tensor) -> tuple[torch.Tensor, Callable[[], None]]:
    """Return a copy of a tensor in the host's memory, and what to call before it is read: it waits until the copy is there."""
    if value.device.type != "cuda":
        return value, lambda: None
    copy = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
    copy.copy_(value, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return copy, event.synchronize


def _gradient_factor(learner: Learner, norm: torch.Tensor) -> torch.Tensor | None:
    """Return the factor that undoes the loss scale and clips the gradient; None for 1."""
    factor = None if learner.scale is None else 1 / learner.scale.value
    if learner.adam.clip:
        clip = (learner.adam.clip / (norm + 1e-6)).clamp(max=1.0)
        factor = clip if factor is None else clip * factor
    return factor
