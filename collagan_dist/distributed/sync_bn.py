"""Batch normalization over the samples of all ranks, on any device (torch's SyncBatchNorm refuses CPU tensors)."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from collagan_dist.distributed.group import Group
from collagan_dist.types import as_float32


class SyncBatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d that in training normalizes by the statistics of all ranks' samples, with gradients through them.

    Every rank has equally many samples. In eval mode it equals the plain layer, so weights can be used without ranks.
    """

    def __init__(self, plain: nn.BatchNorm2d, group: Group) -> None:
        super().__init__(plain.num_features, plain.eps, plain.momentum, plain.affine, plain.track_running_stats)
        self.load_state_dict(plain.state_dict())
        self.group = group

    def forward(self, x_BCHW: torch.Tensor, parts: int = 1) -> torch.Tensor:
        """Normalize; a batch of `parts` equal parts as if each came by itself."""
        if parts > 1 and self.training:
            return torch.cat([self(part) for part in x_BCHW.split(len(x_BCHW) // parts)])
        # Ranks evaluate unequal batches at their own speed, so a collective would never match.
        if not self.training or torch.is_inference_mode_enabled():
            return super().forward(x_BCHW)
        x = as_float32(x_BCHW)
        var_C, mean_C = torch.var_mean(x, dim=(0, 2, 3), correction=0)
        with self.group.collective("batch normalization"):
            mean, var = _OverRanks.apply(torch.stack([mean_C, var_C])).unbind()
        self._update_running(mean.detach(), var.detach(), x.numel() // x.shape[1] * self.group.world.size)
        # Scale and shift would be rounded to 16 bits by autocast.
        with torch.autocast(x.device.type, enabled=False):
            scale = self.weight * torch.rsqrt(var + self.eps)
            shift = self.bias - mean * scale
            return (x * scale[:, None, None] + shift[:, None, None]).to(x_BCHW.dtype)

    def _update_running(self, mean_C: torch.Tensor, var_C: torch.Tensor, count: int) -> None:
        """Update the running statistics from `count` values per channel."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        # nn.BatchNorm2d: momentum None means a cumulative average.
        momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean_C.to(self.running_mean), momentum)
        # As in nn.BatchNorm2d the running variance is unbiased, although the batch is normalized by the biased one.
        self.running_var.lerp_((var_C * (count / max(1, count - 1))).to(self.running_var), momentum)


class _OverRanks(torch.autograd.Function):
    """Mean and variance (2, C) over the samples of all ranks, from each rank's own; every rank has equally many samples."""

    @staticmethod
    def forward(context: Any, own_2C: torch.Tensor) -> torch.Tensor:
        all_W2C = own_2C.new_empty((dist.get_world_size(), *own_2C.shape))
        dist.all_gather(list(all_W2C.unbind()), own_2C.contiguous())
        mean = all_W2C[:, 0].mean(0)
        # Chan's formula for equal parts: no difference of large numbers, as E[x²] - E[x]² would be.
        var = (all_W2C[:, 1] + (all_W2C[:, 0] - mean).square()).mean(0)
        context.save_for_backward(own_2C[0] - mean)
        return torch.stack([mean, var])

    @staticmethod
    def backward(context: Any, gradient_2C: torch.Tensor) -> torch.Tensor:
        # All ranks' losses depend on both. Two numbers a channel are summed, not two for each rank.
        total = gradient_2C.clone(memory_format=torch.contiguous_format)  # autograd forbids changing its input in place
        dist.all_reduce(total)
        (difference,) = context.saved_tensors
        of_mean, of_var = total / dist.get_world_size()
        return torch.stack([of_mean + 2 * difference * of_var, of_var])


def convert_sync_batchnorm(module: nn.Module, group: Group) -> nn.Module:
    """Replace every BatchNorm2d that is trained by a SyncBatchNorm; names and values stay."""
    if isinstance(module, nn.BatchNorm2d) and not isinstance(module, SyncBatchNorm):
        return SyncBatchNorm(module, group) if module.weight.requires_grad else module
    for name, child in module.named_children():
        setattr(module, name, convert_sync_batchnorm(child, group))
    return module
