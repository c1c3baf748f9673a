"""Dynamic loss scaling for float16: the factor that keeps small gradients above float16's smallest number."""

from __future__ import annotations

import torch

# The numbers of torch's GradScaler.
_INITIAL_SCALE = 2.0**16
_MAX_SCALE = 2.0**24
_GROWTH_INTERVAL = 2000  # steps without an overflow


class LossScale:
    """A power of two: halved when a gradient overflows, doubled after _GROWTH_INTERVAL steps without an overflow.

    `value` is a scalar on the device. Every rank sees the same gradients, so the scales of all ranks stay equal.
    """

    def __init__(self, device: torch.device) -> None:
        # A power of two only moves the exponent, so scaling rounds nothing.
        self.value = torch.full((), _INITIAL_SCALE, device=device)
        self._steps = 0

    def step_taken(self) -> None:
        """Count a step without an overflow."""
        self._steps += 1
        if self._steps == _GROWTH_INTERVAL:
            self._steps = 0
            self.value = (self.value * 2).clamp(max=_MAX_SCALE)

    def lower(self) -> bool:
        """Halve the scale after an overflow. Return False at a scale of 1, where the scale is not what was too large."""
        self._steps = 0
        if self.value <= 1:
            return False
        self.value = self.value / 2
        return True

    def state(self) -> torch.Tensor:
        """Return (2,) float64: the scale, and the steps since it last changed."""
        return torch.tensor([float(self.value), self._steps], dtype=torch.float64)

    def load(self, state: torch.Tensor) -> None:
        """Take back what `state` returned."""
        self.value = state[0].to(self.value)
        self._steps = int(state[1])
