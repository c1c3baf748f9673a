"""What a Ray worker is told makes a rank of it, without a flag: a whole training of two."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.distributed.stop_request import StopRequest
from collagan_dist.distributed.world import detect_world
from collagan_dist.types import World
from tests.faults import processes
from tests.faults.processes import Ranks
from tests.faults.test_ranks_lost import configured
from tests.runtime.test_world import STEP, TORCHRUN

RAY = {"COLLAGAN_RAY_TRIAL": "trial_7", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "NODE_RANK": "1"}  # fmt: skip


def test_ray_comes_first() -> None:
    """Ray's processes may run inside a Slurm job, whose variables they carry, too."""
    assert detect_world({**STEP, **TORCHRUN, **RAY}) == World(1, 2, 0, 1, 1, "ray")


def test_a_training_of_two_workers(shards: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def variables(rank: int, size: int, port: int) -> dict[str, str]:
        own = {
            "COLLAGAN_RAY_TRIAL": "t",
            "RANK": rank,
            "WORLD_SIZE": size,
            "LOCAL_RANK": rank,
            "LOCAL_WORLD_SIZE": size,
            "NODE_RANK": 0,
        }
        return {name: str(value) for name, value in own.items()} | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip

    monkeypatch.setattr(processes, "_variables", variables)
    config, run = configured(shards, tmp_path, schedule__steps=3), tmp_path / "run"
    with Ranks(tmp_path / "ranks", "collagan_dist", "train", config, "--run", run) as ranks:
        assert ranks.ends(0, 1) == [0, 0], ranks.all_said()
    assert [rank["launcher"] for rank in json.loads((run / "world.json").read_text())["ranks"]] == ["ray", "ray"]


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    """A worker runs its function in a thread, where Python lets nobody take signals."""
    entered = []

    def work() -> None:
        with StopRequest() as stop:
            entered.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered == [False]
