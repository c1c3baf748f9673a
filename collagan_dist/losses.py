"""The objective of section 3: adversarial losses (eqs. 1, 4) and the weighted sum of all losses (eq. 3).

Discriminators return float32 logits l: log D = logsigmoid(l), log(1 - D) = logsigmoid(-l). All losses are averages over patches
and samples, and are minimised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F

# G's adversarial loss by `loss.adv`. ns: non-saturating, as in Goodfellow 2014 and pix2pix. minmax: eq. 1 read as log(1 - D).
# printed: eq. 1 as it is printed, 1 - log D, which is ns plus a constant.
GENERATOR_TERMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "ns": lambda logits: -F.logsigmoid(logits),
    "minmax": lambda logits: F.logsigmoid(-logits),
    "printed": lambda logits: 1 - F.logsigmoid(logits),
}


def generator_term(logits: torch.Tensor, form: str) -> torch.Tensor:
    """Return G's adversarial loss for one task, before λ_adv."""
    return GENERATOR_TERMS[form](logits).mean()


def discriminator_term(real_logits: torch.Tensor, fake_logits: torch.Tensor, fake_weight: float = 1.0) -> torch.Tensor:
    """Return D's loss for one task: -(log D(x, y) + w log(1 - D(x, G))) / 2, with w = `fake_weight`.

    w is 1 as in pix2pix, or λ_adv as in eq. 1. At w = 1 a D that guesses has the loss ln 2.
    """
    # Eq. 1 is printed with 1 - log D for the fakes, which would leave D's loss without a lower bound.
    fake = F.logsigmoid(-fake_logits).mean()
    return (-F.logsigmoid(real_logits).mean() - fake_weight * fake) / 2


def accuracy(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """Return the share of patches that D classifies correctly, with equal weight for real and fake ones."""
    right = (real_logits.detach() > 0).float().mean() + (fake_logits.detach() < 0).float().mean()
    return right / 2


def weighted_sum(
    rec: Mapping[str, torch.Tensor], adv: Mapping[str, torch.Tensor], weights: Mapping[str, tuple[float, float]]
) -> torch.Tensor:
    """Return L_Ω of eq. 3, Σ λ_adv L_adv + λ_rec L_rec. `weights` are (λ_adv, λ_rec) by task."""
    terms = [weights[task][1] * value for task, value in rec.items()]
    terms += [weights[task][0] * value for task, value in adv.items()]
    return torch.stack(terms).sum()
