"""Which device and how many threads a rank uses."""

from __future__ import annotations

import os

import torch

from collagan_dist.types import World


def pick_device(world: World) -> torch.device:
    """The rank's GPU, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", world.local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def thread_count(world: World, wanted: int = 0) -> int:
    """Threads of a rank: as many as wanted, or an even share of the cores this process may use."""
    return wanted or max(1, len(os.sched_getaffinity(0)) // world.local_size)


def configure_torch(threads: int, deterministic: bool) -> None:
    torch.set_num_threads(threads)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
