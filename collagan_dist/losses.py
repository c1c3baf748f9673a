"""The objective of section 3: adversarial terms (eqs. 1, 4) and the weighted sum (eqs. 2, 3).

Discriminators put out logits: log D = logsigmoid(l), log(1 - D) = logsigmoid(-l). All terms are averages over patches
and samples, in float32, and are minimised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F

from collagan_dist.types import as_float32

# What G minimises of log D(x, G(x, z)). Non-saturating (Goodfellow 2014, pix2pix); the min-max game of eq. 1 read as
# log(1 - D); eq. 1 as printed, 1 - log D, which is the first plus a constant.
GENERATOR_TERMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "ns": lambda logits: -F.logsigmoid(logits),
    "minmax": lambda logits: F.logsigmoid(-logits),
    "printed": lambda logits: 1 - F.logsigmoid(logits),
}


def generator_term(logits: torch.Tensor, form: str) -> torch.Tensor:
    """G's adversarial term of one task, before λ_adv."""
    return GENERATOR_TERMS[form](as_float32(logits)).mean()


def discriminator_term(real_logits: torch.Tensor, fake_logits: torch.Tensor, fake_weight: float = 1.0) -> torch.Tensor:
    """D's loss of one task: -(log D(x, y) + w log(1 - D(x, G))) / 2; ln 2 while D cannot tell and w is 1.

    w is 1 as in pix2pix, or λ_adv as eq. 1 has it. Its printed 1 - log D would leave D's loss without a bound.
    """
    fake = F.logsigmoid(-as_float32(fake_logits)).mean()
    return (-F.logsigmoid(as_float32(real_logits)).mean() - fake_weight * fake) / 2


def accuracy(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """Share of patches that D tells right, real and fake ones weighing the same: 1/2 by guessing, 1 when D has won."""
    right = (real_logits.detach() > 0).float().mean() + (fake_logits.detach() < 0).float().mean()
    return right / 2


def weighted_sum(
    rec: Mapping[str, torch.Tensor], adv: Mapping[str, torch.Tensor], weights: Mapping[str, tuple[float, float]]
) -> torch.Tensor:
    """L_Ω of eq. 3: Σ λ_adv L_adv + λ_rec L_rec. `weights` are (λ_adv, λ_rec) by task."""
    terms = [weights[task][1] * value for task, value in rec.items()] + [
        weights[task][0] * value for task, value in adv.items()
    ]
    return torch.stack(terms).sum()
