import torch

from collagan_dist.audit.record import RunRecord
from collagan_dist.audit.rederive import nudge


def test_a_nudge_moves_each_weight_to_a_neighbouring_float(trained):
    found = RunRecord(trained).load(6)
    moved = nudge(found, 0)
    assert moved.tensors["optimizer"] is not None and moved.state == found.state
    for file, content in found.tensors.items():
        for name, tensor in content.items():
            other = moved.tensors[file][name]
            if file in ("generator", "discriminators") and tensor.is_floating_point():
                steps = (other.view(torch.int32) - tensor.view(torch.int32)).abs()
                assert steps[tensor != 0].eq(1).all(), name
            else:
                assert torch.equal(tensor, other)
    up = moved.tensors["generator"]["output.weight"] > found.tensors["generator"]["output.weight"]
    assert 0.3 < up.float().mean() < 0.7
