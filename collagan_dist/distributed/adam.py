"""Adam over the parameters of one network, by torch's fused kernel: the step is done or not by a flag on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.optim.adam import adam

from collagan_dist.types import is_channels_last

_EPSILON = 1e-8  # torch's default


class AdamStates:
    """Adam's moments by parameter, and the step that uses them.

    `state` has for each parameter that has taken a step `exp_avg` and `exp_avg_sq`, in the parameter's shape, and `step`, a float32
    scalar: what torch.optim.Adam keeps.
    """

    # Not torch.optim.Adam: its first use imports torch._dynamo, a second of start-up. Its arithmetic is the function below.

    def __init__(self, parameters: Sequence[torch.Tensor], betas: tuple[float, float]) -> None:
        self.parameters, self.betas = parameters, betas
        self.state: dict[torch.Tensor, dict[str, torch.Tensor]] = {}

    @torch.no_grad()
    def step(self, lr: float | torch.Tensor, finite: torch.Tensor) -> None:
        """Do one step of all parameters with a gradient. Where `finite`, a boolean scalar on the device, is false nothing moves."""
        moved = [p for p in self.parameters if p.grad is not None]
        states = [self._state_of(p) for p in moved]
        beta1, beta2 = self.betas
        adam(
            [_in_order_of_memory(p, p) for p in moved],
            [_in_order_of_memory(p.grad, p) for p in moved if p.grad is not None],
            [_in_order_of_memory(state["exp_avg"], p) for state, p in zip(states, moved, strict=True)],
            [_in_order_of_memory(state["exp_avg_sq"], p) for state, p in zip(states, moved, strict=True)],
            [],
            [state["step"] for state in states],
            fused=True,
            found_inf=(~finite).float(),
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=lr,
            weight_decay=0.0,
            eps=_EPSILON,
            maximize=False,
        )

    def _state_of(self, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        if parameter not in self.state:
            moments = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
            self.state[parameter] = {"step": torch.zeros((), device=parameter.device), **moments}
        return self.state[parameter]


def _in_order_of_memory(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Return a view of a parameter's tensor that is contiguous where the parameter is in channels_last."""
    # The CPU's kernel copies what is not contiguous, which takes three times as long as the step itself.
    return tensor.permute(0, 2, 3, 1) if is_channels_last(parameter) else tensor
