from typing import Any

import torch
from torch import nn

from collagan_dist.distributed.group import Group
from collagan_dist.distributed.sync_bn import SyncBatchNorm, convert_sync_batchnorm
from collagan_dist.types import World


def test_two_ranks_equal_the_plain_layer_on_the_whole_batch(two_ranks):
    """Outputs, gradients and running statistics, in float64; in eval mode no rank waits for another."""
    torch.manual_seed(0)
    x = torch.randn(8, 3, 4, 4, dtype=torch.float64).requires_grad_()
    plain = nn.BatchNorm2d(3).double()
    y = plain(x)
    y.pow(3).sum().backward()
    first, second = (rank["batch_norm"] for rank in two_ranks)

    def equal(found: list[Any], expected: torch.Tensor | None) -> bool:
        return torch.allclose(torch.tensor(found, dtype=torch.float64), expected, rtol=1e-9, atol=1e-9)

    assert equal(first["output"] + second["output"], y) and equal(first["input_grad"] + second["input_grad"], x.grad)
    # Each rank has its own half's sum; engines add them up.
    total = [a + b for a, b in zip(first["weight_grad"], second["weight_grad"], strict=True)]
    assert equal(total, plain.weight.grad)
    for rank in (first, second):
        assert equal(rank["running"][0], plain.running_mean) and equal(rank["running"][1], plain.running_var)
    assert equal(first["eval"] + second["eval"], plain.eval()(x))


def test_frozen_layers_stay_plain():
    frozen = nn.BatchNorm2d(2).requires_grad_(False)
    module = nn.Sequential(nn.BatchNorm2d(2), nn.Sequential(frozen))
    names = [*module.state_dict()]
    converted = convert_sync_batchnorm(module, Group(World(), torch.device("cpu")))
    assert isinstance(converted[0], SyncBatchNorm) and converted[1][0] is frozen
    assert [*converted.state_dict()] == names
