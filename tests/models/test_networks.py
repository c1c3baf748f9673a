import pytest
import torch

from collagan_dist.errors import CheckpointError
from tests.models.peers import peer, smooth, start, state
from tests.training.small import equal


def test_the_average_moves_by_one_minus_decay(shards):
    _, networks = start(peer(shards, "ce"))
    before = state(networks.ema)
    with torch.no_grad():
        for value in networks.generator.state_dict().values():
            value.add_(1)
    networks.average(0.9, torch.tensor(True))
    for name, value in networks.ema.state_dict().items():
        moved = before[name] + 0.1 if value.is_floating_point() else before[name]
        assert torch.allclose(value, moved, atol=1e-6), name
    assert networks.eval_generator is networks.ema
    before = state(networks.ema)
    networks.average(0.9, torch.tensor(False))  # after a step that was skipped
    assert equal(before, state(networks.ema))


def test_what_is_saved_comes_back(shards):
    step, networks = start(peer(shards, "ce"))
    step(smooth(4, 32), 0)
    saved = {
        file: {name: value.clone() for name, value in tensors.items()} for file, tensors in networks.tensors().items()
    }
    assert set(saved) == {"generator", "discriminators", "optimizer", "ema"} and bool(networks.finite())
    _, other = start(peer(shards, "ce"))
    other.restore(saved)
    assert all(equal(tensors, saved[file]) for file, tensors in other.tensors().items())
    with pytest.raises(CheckpointError, match="of another network"):
        other.restore({**saved, "generator": saved["discriminators"]})


def test_a_moment_that_is_not_finite_is_found(shards):
    step, networks = start(peer(shards, "ce"))
    step(smooth(4, 32), 0)
    learner = networks.discriminator_learner
    next(iter(learner.optimizer.state.values()))["exp_avg"].fill_(torch.nan)
    assert not bool(networks.finite())
