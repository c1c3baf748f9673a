import numpy as np
import pytest
import torch

from collagan_dist import rng


def test_uniforms_are_uniform_and_uncorrelated():
    u = rng.uniforms(rng.key64(1, "test", np.arange(20_000)), 4)
    assert abs(u.mean() - 0.5) < 0.005 and abs(u.var() - 1 / 12) < 0.002
    assert np.abs(np.corrcoef(u.T) - np.eye(4)).max() < 0.03
    assert abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 0.03


def test_tensors_are_uniform_and_uncorrelated_between_samples_and_streams():
    keys = torch.from_numpy(rng.tensor_keys(rng.key64(1, "t", np.arange(8))))
    u = rng.uniform_tensor(keys, 50_000).double()
    histogram = torch.histc(u, 64, 0, 1) / u.numel() * 64
    assert (histogram - 1).abs().max() < 0.05
    rows = torch.cat([u, rng.uniform_tensor(keys, 50_000, stream=2).double(), u.roll(1, 1)])
    assert (torch.corrcoef(rows) - torch.eye(24)).abs().max() < 0.03


def test_a_sample_does_not_depend_on_its_batch():
    keys = torch.from_numpy(rng.tensor_keys(rng.key64(5, "t", np.arange(10))))
    assert torch.equal(rng.uniform_tensor(keys, 100)[3:5], rng.uniform_tensor(keys[3:5], 100))
    assert torch.equal(rng.uniform_tensor(keys, 100)[:, :40], rng.uniform_tensor(keys, 40))


def test_every_part_of_a_key_counts():
    parts = [(1, 2, 3), (1, 3, 2), (2, 1, 3), (1, 2, 4), ("1", 2, 3), (1, 2, -3), (1, 2)]
    assert len({int(rng.key64(*p)) for p in parts}) == 7


def test_the_hash_is_fixed():
    """Runs of another version must continue with the same numbers."""
    assert int(rng.key64(1, "order", 2)) == 12397471329095848203
    bits = rng.hash_tensor(torch.tensor([[1, 3]], dtype=torch.int32), 3)
    assert bits.tolist() == [[-73748352, 310023243, -1540048711]]


@pytest.mark.gpu
def test_gpu_gives_the_same_bits():
    keys = torch.from_numpy(rng.tensor_keys(rng.key64(1, "t", np.arange(8))))
    assert torch.equal(rng.hash_tensor(keys, 50_000), rng.hash_tensor(keys.cuda(), 50_000).cpu())
