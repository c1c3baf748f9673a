"""Who am I, by launcher."""

from __future__ import annotations

import pytest

from collagan_dist.contract import World
from collagan_dist.errors import ClusterError
from collagan_dist.runtime.world import detect

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "1",
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
}
STEP = {
    "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_NODEID": "1",
}  # fmt: skip


def test_alone() -> None:
    assert detect({}) == World()


def test_torchrun() -> None:
    assert detect(TORCHRUN) == World(5, 8, 1, 4, 1, "torchrun")


def test_srun_step() -> None:
    assert detect(STEP) == World(3, 4, 1, 2, 1, "srun")


def test_torchrun_inside_a_step_is_torchrun() -> None:
    assert detect({**STEP, **TORCHRUN}).launcher == "torchrun"


def test_a_batch_shell_is_alone() -> None:
    batch = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS": "4"}
    assert detect(batch) == World()


def test_broken_variables_are_named() -> None:
    with pytest.raises(ClusterError, match="WORLD_SIZE"):
        detect({k: v for k, v in TORCHRUN.items() if k != "WORLD_SIZE"})
