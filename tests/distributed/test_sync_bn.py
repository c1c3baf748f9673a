import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from collagan_dist.distributed.group import Group
from collagan_dist.distributed.rehearsal import RehearsalGroup
from collagan_dist.distributed.sync_bn import SyncBatchNorm, _OverRanks, convert_sync_batchnorm
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


class Exchanges(TorchDispatchMode):
    """Names and numbers of what ranks exchange."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d":
            self.seen.append((func._schema.name, sum(one.numel() for one in tree_leaves(args) if torch.is_tensor(one))))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("ranks", [2, 1024])
def test_what_is_exchanged_does_not_grow_with_the_ranks(ranks):
    """Two numbers a channel, forward and backward."""
    with RehearsalGroup(World(1, ranks), torch.device("cpu")) as group, Exchanges() as exchanges:
        SyncBatchNorm(nn.BatchNorm2d(5), group)(torch.randn(2, 5, 3, 3, requires_grad=True)).sum().backward()
    assert exchanges.seen == 2 * [("c10d::allreduce_", 10)]


def test_the_gradient_is_that_of_the_complete_batch(monkeypatch):
    """Of the formula alone, with both ranks in one process: each all-reduce adds the other rank's numbers. Pictures far from 0, too."""
    torch.manual_seed(0)
    own = torch.randn(2, 2, 3, dtype=torch.float64) ** 2 + torch.tensor([[[0.0], [1.0]], [[1e3], [1.0]]])
    both = own.clone().requires_grad_()
    mean = both[:, 0].mean(0)
    exact = torch.stack([mean, (both[:, 1] + (both[:, 0] - mean) ** 2).mean(0)])
    weight = torch.randn(2, 2, 3, dtype=torch.float64)  # of the losses of both ranks
    (exact * weight.sum(0)).sum().backward()
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    for rank in range(2):
        mine, other = own[rank].clone().requires_grad_(), own[1 - rank]
        added = iter([torch.stack([other[0], other[1] + other[0] ** 2]), weight[1 - rank]])
        monkeypatch.setattr(dist, "all_reduce", lambda total, added=added: total.add_(next(added)))
        found = _OverRanks.apply(mine)
        (found * weight[rank]).sum().backward()
        assert torch.allclose(found, exact, rtol=1e-9) and torch.allclose(mine.grad, both.grad[rank], rtol=1e-9)
