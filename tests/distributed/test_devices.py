import os
import platform
from pathlib import Path

import pytest
import torch

from collagan_dist.distributed import devices
from collagan_dist.types import World


def test_ranks_of_a_node_share_its_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    assert devices.thread_count(World(size=8, local_size=4)) == 4 and devices.thread_count(World(), 3) == 3
    assert devices.thread_count(World(size=64, local_size=64)) == 1


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of x86")
def test_whether_a_processor_has_bf16():
    flags = Path("/proc/cpuinfo").read_text().split()
    assert devices.has_bf16(torch.device("cpu")) == ({"avx512bw", "avx512vl", "avx512dq"} <= set(flags))
    assert devices.has_bf16(torch.device("cuda"))


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
