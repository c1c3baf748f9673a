"""Ranks as processes without a launcher, which would end the others: each one's exit code and output are seen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from tests.conftest import ROOT
from tests.faults.starts import free_port

LIMIT = 240  # seconds after which a test gives up


class Ranks:
    """`python -m *ARGS` on each of `size` ranks of one machine; rank 0 hosts the store. Leaving the block kills what is left."""

    def __init__(self, folder: Path, *args: object, size: int = 2) -> None:
        folder.mkdir(exist_ok=True)
        self.logs = [folder / f"rank-{rank}.log" for rank in range(size)]
        self.processes, port = [], free_port()
        for rank, log in enumerate(self.logs):
            env = os.environ | _variables(rank, size, port) | {"OMP_NUM_THREADS": "1"}
            with log.open("w") as out:
                command = [sys.executable, "-m", *map(str, args)]
                self.processes.append(subprocess.Popen(command, env=env, cwd=ROOT, stdout=out, stderr=out))

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def send(self, rank: int, number: signal.Signals) -> None:
        self.processes[rank].send_signal(number)

    def ends(self, *ranks: int) -> list[int]:
        """The exit codes of some ranks, once they have ended by themselves."""
        return [self.processes[rank].wait(timeout=LIMIT) for rank in ranks]

    def said(self, rank: int) -> str:
        return self.logs[rank].read_text()

    def all_said(self) -> str:
        return "\n".join(f"--- rank {rank}\n{self.said(rank)}" for rank in range(len(self.logs)))


def _variables(rank: int, size: int, port: int) -> dict[str, str]:
    """The variables that torchrun would set for a rank."""
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "GROUP_RANK": 0}
    shared = {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in (own | shared).items()}


def until(true: Callable[[], bool], still: Callable[[], bool] = lambda: True) -> None:
    """Wait for something to become true; `still` says whether it still can."""
    deadline = time.monotonic() + LIMIT
    while not true():
        assert still(), "it can no longer come true"
        assert time.monotonic() < deadline, "gave up"
        time.sleep(0.02)


def lines(run: Path) -> int:
    """Lines of a run's metrics so far."""
    metrics = run / "metrics.jsonl"
    return len(metrics.read_bytes().splitlines()) if metrics.exists() else 0
