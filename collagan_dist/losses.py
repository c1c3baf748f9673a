"""The adversarial losses of section 3 (eqs. 1, 4).

Discriminators return float32 logits l: log D = logsigmoid(l), log(1 - D) = logsigmoid(-l). All losses are averages over patches
and samples, and are minimised. `dim` is the axis of both; None stands for all axes. So the logits of several tasks, one a row, give
the losses of all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

# G's adversarial loss by `loss.adv`. ns: non-saturating, as in Goodfellow 2014 and pix2pix. minmax: eq. 1 read as log(1 - D).
# printed: eq. 1 as it is printed, 1 - log D, which is ns plus a constant.
GENERATOR_TERMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "ns": lambda logits: -F.logsigmoid(logits),
    "minmax": lambda logits: F.logsigmoid(-logits),
    "printed": lambda logits: 1 - F.logsigmoid(logits),
}


def generator_term(logits: torch.Tensor, form: str, dim: int | None = None) -> torch.Tensor:
    """Return G's adversarial loss, before λ_adv."""
    return GENERATOR_TERMS[form](logits).mean(dim)


def discriminator_term(
    real_logits: torch.Tensor,
    fake_logits: torch.Tensor,
    fake_weight: float | torch.Tensor = 1.0,
    dim: int | None = None,
) -> torch.Tensor:
    """Return D's loss: -(log D(x, y) + w log(1 - D(x, G))) / 2, with w = `fake_weight`.

    w is 1 as in pix2pix, or λ_adv as in eq. 1. At w = 1 a D that guesses has the loss ln 2.
    """
    # Eq. 1 is printed with 1 - log D for the fakes, which would leave D's loss without a lower bound.
    fake = F.logsigmoid(-fake_logits).mean(dim)
    return (F.logsigmoid(real_logits).mean(dim) + fake_weight * fake) * -0.5


def accuracy(real_logits: torch.Tensor, fake_logits: torch.Tensor, dim: int | None = None) -> torch.Tensor:
    """Return the share of patches that D classifies correctly, with equal weight for real and fake ones."""
    right = (real_logits.detach() > 0).float().mean(dim) + (fake_logits.detach() < 0).float().mean(dim)
    return right / 2
