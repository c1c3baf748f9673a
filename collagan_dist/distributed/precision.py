"""The factor that keeps small gradients of float16 networks above its smallest number."""

from __future__ import annotations

import torch

_START = 2.0**16
_LARGEST = 2.0**24
_RAISE_AFTER = 2000  # good steps (Micikevicius 2018, section 3.2; torch's GradScaler has the same numbers)


class LossScale:
    """A power of two, so that scaling rounds nothing: halved when a gradient overflows, doubled after many that did not.

    All ranks see the same gradients, so their scales stay equal. `value` is a scalar on the device.
    """

    def __init__(self, device: torch.device) -> None:
        self.value = torch.full((), _START, device=device)
        self._good = 0

    def good(self) -> None:
        """A step was taken."""
        self._good += 1
        if self._good == _RAISE_AFTER:
            self._good = 0
            self.value = (self.value * 2).clamp(max=_LARGEST)

    def lower(self) -> bool:
        """A gradient overflowed; False when the scale is 1, which cannot be what was too large."""
        self._good = 0
        if self.value <= 1:
            return False
        self.value = self.value / 2
        return True

    def state(self) -> torch.Tensor:
        """(2,) float64: the scale and the good steps since it last changed."""
        return torch.tensor([float(self.value), self._good], dtype=torch.float64)

    def load(self, state: torch.Tensor) -> None:
        self.value = state[0].to(self.value)
        self._good = int(state[1])
