"""Ranks started with the variables that srun sets, each with its own command and environment."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def as_rank(rank: int, size: int, port: int, host: str = "127.0.0.1") -> dict[str, str]:
    """The environment of one task of an srun step on one node."""
    step = {
        "JOB_ID": 7, "STEP_ID": 0, "PROCID": rank, "STEP_NUM_TASKS": size, "LOCALID": rank, "STEP_TASKS_PER_NODE": size, "NODEID": 0,
    }  # fmt: skip
    own = {f"SLURM_{name}": str(value) for name, value in step.items()}
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | own | {
        "MASTER_ADDR": host, "MASTER_PORT": str(port),
    }  # fmt: skip


def run_ranks(
    commands: Sequence[Sequence[object]],
    environments: Sequence[Mapping[str, str]],
    cwd: Path,
    prefix: Sequence[str] = (),
) -> list[Ended]:
    """Run `collagan COMMAND` on several ranks at once and wait for all of them."""
    ranks = [
        subprocess.Popen(
            [*prefix, sys.executable, "-m", "collagan_dist", *map(str, command)], env=dict(env), cwd=cwd, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for command, env in zip(commands, environments, strict=True)
    ]  # fmt: skip
    ended = []
    for rank in ranks:
        out, err = rank.communicate(timeout=200)
        ended.append(Ended(rank.returncode, out, err))
    return ended
