"""Batch normalization over all ranks, on any device (torch's SyncBatchNorm refuses CPU tensors)."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from collagan_dist.distributed.group import Group
from collagan_dist.types import as_float32


class SyncBatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d whose statistics in training are those of all ranks' samples, with gradients through them.

    Ranks have equally many samples. In eval mode it is the plain layer, so a model trained with it is used without ranks.
    """

    def __init__(self, plain: nn.BatchNorm2d, group: Group) -> None:
        super().__init__(plain.num_features, plain.eps, plain.momentum, plain.affine, plain.track_running_stats)
        self.load_state_dict(plain.state_dict())
        self.group = group

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        if not self.training or torch.is_inference_mode_enabled():  # ranks evaluate unequal batches, each at its pace
            return super().forward(x_BCHW)
        x = as_float32(x_BCHW)
        var_C, mean_C = torch.var_mean(x, dim=(0, 2, 3), correction=0)
        with self.group.collective("batch normalization"):
            all_W2C = _gather(torch.stack([mean_C, var_C]))
        mean = all_W2C[:, 0].mean(0)
        # Chan's formula for equal parts: no difference of large numbers, as E[x²] - E[x]² would be.
        var = (all_W2C[:, 1] + (all_W2C[:, 0] - mean).square()).mean(0)
        self._remember(mean.detach(), var.detach(), x.numel() // x.shape[1] * len(all_W2C))
        with torch.autocast(x.device.type, enabled=False):
            scale = self.weight * torch.rsqrt(var + self.eps)
            shift = self.bias - mean * scale
            return (x * scale[:, None, None] + shift[:, None, None]).to(x_BCHW.dtype)

    def _remember(self, mean_C: torch.Tensor, var_C: torch.Tensor, count: int) -> None:
        """The running statistics, as the plain layer keeps them: of the unbiased variance."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean_C.to(self.running_mean), momentum)
        self.running_var.lerp_((var_C * (count / max(1, count - 1))).to(self.running_var), momentum)


class _Gather(torch.autograd.Function):
    """Every rank's tensor, by rank; the gradient of each goes back to its rank, summed over all that used it."""

    @staticmethod
    def forward(context: Any, mine: torch.Tensor) -> torch.Tensor:
        all_ranks = mine.new_empty((dist.get_world_size(), *mine.shape))
        dist.all_gather(list(all_ranks.unbind()), mine.contiguous())
        return all_ranks

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[dist.get_rank()]


def _gather(mine: torch.Tensor) -> torch.Tensor:
    return _Gather.apply(mine)


def convert_sync_batchnorm(module: nn.Module, group: Group) -> nn.Module:
    """The module with every BatchNorm2d that learns replaced by a SyncBatchNorm; names and values stay."""
    if isinstance(module, nn.BatchNorm2d) and not isinstance(module, SyncBatchNorm):
        return SyncBatchNorm(module, group) if module.weight.requires_grad else module
    for name, child in module.named_children():
        setattr(module, name, convert_sync_batchnorm(child, group))
    return module
