"""Poisson blending (section 4.3)."""

from __future__ import annotations

import torch

from collagan_dist.contract import Batch


def blend(output_B3HW: torch.Tensor, batch: Batch) -> torch.Tensor:
    raise NotImplementedError
