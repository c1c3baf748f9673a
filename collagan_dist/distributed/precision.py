"""Dynamic loss scaling for float16: the factor that keeps small gradients above float16's smallest number."""

from __future__ import annotations

import torch

# The numbers of torch's GradScaler.
_INITIAL_SCALE = 2.0**16
_MAX_SCALE = 2.0**24
_GROWTH_INTERVAL = 2000  # steps without an overflow


class LossScale:
    """A power of two: halved when a gradient overflows, doubled after _GROWTH_INTERVAL steps without an overflow.

    `value` is a scalar on the device, and what changes it is decided there. Every rank sees the same gradients, so the scales of all
    ranks stay equal.
    """

    def __init__(self, device: torch.device) -> None:
        # A power of two only moves the exponent, so scaling rounds nothing.
        self.value = torch.full((), _INITIAL_SCALE, device=device)
        self._steps = torch.zeros((), dtype=torch.int64, device=device)

    def update(self, finite: torch.Tensor, overflow: torch.Tensor) -> torch.Tensor:
        """Count a step that was `finite`, or halve the scale after an `overflow`; both are boolean scalars on the device.

        Return whether the scale was halved: at a scale of 1 it is not what was too large.
        """
        lowered = overflow & (self.value > 1)
        steps = self._steps + 1
        grown = finite & (steps == _GROWTH_INTERVAL)
        # In place: a CUDA graph knows these tensors.
        self._steps.copy_(torch.where(finite, steps % _GROWTH_INTERVAL, torch.where(overflow, 0, self._steps)))
        larger, smaller = (self.value * 2).clamp(max=_MAX_SCALE), torch.where(lowered, self.value / 2, self.value)
        self.value.copy_(torch.where(grown, larger, smaller))
        return lowered

    def state(self) -> torch.Tensor:
        """Return (2,) float64: the scale, and the steps since it last changed."""
        return torch.stack([self.value.double(), self._steps.double()])

    def load(self, state: torch.Tensor) -> None:
        """Take back what `state` returned."""
        self.value.copy_(state[0])
        self._steps.copy_(state[1])
