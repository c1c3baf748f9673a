import os

import torch

from collagan_dist.distributed import devices
from collagan_dist.types import World


def test_ranks_of_a_node_share_its_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    assert devices.thread_count(World(size=8, local_size=4)) == 4 and devices.thread_count(World(), 3) == 3
    assert devices.thread_count(World(size=64, local_size=64)) == 1


def test_deterministic_algorithms_are_a_choice():
    threads = torch.get_num_threads()
    try:
        devices.configure_torch(1, deterministic=False)
        assert torch.get_num_threads() == 1 and not torch.are_deterministic_algorithms_enabled()
        devices.configure_torch(1, deterministic=True)
        assert torch.are_deterministic_algorithms_enabled() and "CUBLAS_WORKSPACE_CONFIG" in os.environ
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
