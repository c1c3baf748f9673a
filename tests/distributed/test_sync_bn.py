import torch
from torch import nn

from collagan_dist.distributed.group import Group
from collagan_dist.distributed.sync_bn import SyncBatchNorm, convert_sync_batchnorm
from collagan_dist.types import World
from tests.distributed.two_ranks import two_ranks


def test_two_ranks_equal_the_plain_layer_on_the_complete_batch():
    """Outputs and running statistics, in float64; in eval mode no rank waits for another. (Gradients: test_engines.py.)"""
    torch.manual_seed(0)
    x, plain = torch.randn(8, 3, 4, 4, dtype=torch.float64), nn.BatchNorm2d(3).double()
    y = plain(x)
    running = [plain.running_mean, plain.running_var]
    ranks = [rank["batch_norm"] for rank in two_ranks()]
    for name, expected in (("output", y), ("eval", plain.eval()(x))):
        both = torch.tensor(ranks[0][name] + ranks[1][name], dtype=torch.float64)
        assert torch.allclose(both, expected, rtol=1e-9, atol=1e-9)
    for rank in ranks:
        assert torch.allclose(torch.tensor(rank["running"], dtype=torch.float64), torch.stack(running), atol=1e-9)


def test_frozen_layers_stay_plain():
    frozen = nn.BatchNorm2d(2).requires_grad_(False)
    module = nn.Sequential(nn.BatchNorm2d(2), nn.Sequential(frozen))
    names = [*module.state_dict()]
    converted = convert_sync_batchnorm(module, Group(World(), torch.device("cpu")))
    assert isinstance(converted[0], SyncBatchNorm) and converted[1][0] is frozen
    assert [*converted.state_dict()] == names
