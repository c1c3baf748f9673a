"""Ranks as processes without a launcher, which would end the others: each one's exit code and output are seen."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.conftest import ROOT

LIMIT = 240  # seconds after which a test gives up


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def as_rank(rank: int, size: int, port: int, host: str = "127.0.0.1") -> dict[str, str]:
    """The environment of one task of an srun step on one node."""
    step = {
        "JOB_ID": 7, "STEP_ID": 0, "PROCID": rank, "STEP_NUM_TASKS": size, "LOCALID": rank, "STEP_TASKS_PER_NODE": size, "NODEID": 0,
    }  # fmt: skip
    own = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    own |= {f"SLURM_{name}": str(value) for name, value in step.items()}
    return own | {"MASTER_ADDR": host, "MASTER_PORT": str(port)}


class Ranks:
    """`python -m COMMAND` for each of `commands`, by default as the ranks of one machine. Leaving the block kills what is left."""

    def __init__(
        self,
        folder: Path,
        *commands: Sequence[object],
        environments: Sequence[Mapping[str, str]] = (),
        prefix: Sequence[str] = (),
    ) -> None:
        port, size = free_port(), len(commands)
        environments = environments or [as_rank(rank, size, port) for rank in range(size)]
        self.logs = [folder / f"rank-{rank}.log" for rank in range(size)]
        self.processes = []
        for command, env, log in zip(commands, environments, self.logs, strict=True):
            with log.open("w") as out:
                words = [*prefix, sys.executable, "-m", *map(str, command)]
                self.processes.append(subprocess.Popen(words, env=env, cwd=folder, stdout=out, stderr=out))

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def send(self, rank: int, number: signal.Signals) -> None:
        self.processes[rank].send_signal(number)

    def end(self, *ranks: int) -> list[int]:
        """The exit codes of some ranks, or of all, once they have ended by themselves."""
        return [self.processes[rank].wait(timeout=LIMIT) for rank in ranks or range(len(self.processes))]

    def output(self, *ranks: int) -> str:
        return "\n".join(self.logs[rank].read_text() for rank in ranks or range(len(self.logs)))


def until(true: Callable[[], bool], still: Callable[[], bool] = lambda: True) -> None:
    """Wait for something to become true; `still` says whether it still can."""
    deadline = time.monotonic() + LIMIT
    while not true():
        assert still(), "it can no longer come true"
        assert time.monotonic() < deadline, "gave up"
        time.sleep(0.02)


def records(run: Path, kind: str = "") -> list[dict[str, Any]]:
    """The lines of a run's metrics so far, all or those of a kind."""
    metrics = run / "metrics.jsonl"
    # A line that is being written at this moment has no end yet.
    found = map(json.loads, metrics.read_text().rpartition("\n")[0].splitlines() if metrics.exists() else [])
    return [record for record in found if record["kind"].startswith(kind)]
