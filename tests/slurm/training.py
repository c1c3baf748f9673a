"""A training as a job of the test cluster, long enough to be disturbed, and what it left."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collagan_dist.config.load import to_yaml
from tests.conftest import ROOT
from tests.slurm.cluster import Cluster, Job
from tests.training.small import small

TRAIN = ROOT / "slurm/train.sh"
SMALL_JOB = (
    "--nodes=2",
    "--ntasks-per-node=1",
    "--gpus-per-node=0",
    "--cpus-per-task=1",
    "--time=30",
    "--oversubscribe",
)


def write_config(folder: Path, shards: Path, **changes: Any) -> Path:
    """A configuration in which a checkpoint comes every 10 steps, and stays."""
    steps = {"checkpoint__every": 10, "checkpoint__keep": 1000, "log__every": 10, "log__grid_every": 10_000}
    path = folder / "small.yaml"
    path.write_text(to_yaml(small(shards, **(steps | changes))))
    return path


@dataclass
class Training:
    """A job that trains into `run`."""

    cluster: Cluster
    job: str
    run: Path

    @classmethod
    def submit(
        cls, cluster: Cluster, config: Path, run: Path, *options: str, sets: Sequence[str] = (), **env: str
    ) -> Training:
        """`options` of sbatch, `sets` of the configuration; what follows the training is left out unless `env` says so."""
        words = [config, "--run", run, *(word for item in sets for word in ("--set", item))]
        env = {"COLLAGAN_EVALUATE": "0"} | env
        return cls(cluster, cluster.submit(TRAIN, *words, options=[*SMALL_JOB, *options], cwd=run.parent, env=env), run)

    def state(self) -> Job:
        return self.cluster.job(self.job)

    def log(self) -> str:
        return self.cluster.log(self.job)

    def saved(self) -> int:
        """The step of the newest checkpoint, 0 without any."""
        return max((int(p.name[5:]) for p in (self.run / "checkpoints").glob("step-*")), default=0)

    def until_saved(self, step: int, timeout: float = 120) -> None:
        """Wait until a checkpoint of this step or a later one is there; the job must not end before."""

        def there() -> bool:
            assert not self.state().ended or self.saved() >= step, self.log()
            return self.saved() >= step

        self.cluster.until(there, timeout, f"step {step}", self.job)

    def until_start(self, number: int, timeout: float = 120) -> None:
        """Wait until Slurm has started the job again for the `number`-th time."""
        self.cluster.until(
            lambda: self.state().restarts >= number and self.state().state == "RUNNING", timeout, f"start {number}", self.job
        )  # fmt: skip

    def finish(self, timeout: float = 240) -> Job:
        """The job, which must end well and leave no process."""
        done = self.cluster.wait(self.job, timeout)
        assert (done.state, done.exit_code) == ("COMPLETED", 0), self.log()
        assert not self.processes()
        return done

    def lines(self, kind: str) -> list[dict[str, Any]]:
        # A line that is being written at this moment has no end yet.
        lines = map(json.loads, (self.run / "metrics.jsonl").read_text().rpartition("\n")[0].splitlines())
        return [line for line in lines if line["kind"] == kind]

    def events(self) -> list[tuple[str, int]]:
        return [(line["event"], line["step"]) for line in self.lines("event")]

    def notes(self) -> list[str]:
        """What slurm/train.sh wrote of its starts."""
        (file,) = (self.run / "logs").glob("slurm-*.txt")
        return [line.split("  ", 3)[3] for line in file.read_text().splitlines() if not line.startswith("#")]

    def steps(self) -> list[int]:
        return [line["step"] for line in self.lines("train")]

    def lost_steps(self) -> int:
        return max(self.steps()) - self.saved()

    def processes(self) -> list[tuple[str, str]]:
        """(node, process id) of everything that works on the run: ranks, launchers, batch scripts."""
        return [(node, process) for node, process, _ in self.commands()]

    def ranks(self) -> list[tuple[str, str]]:
        """(node, process id) of the Python processes that train; torchrun itself is none."""
        pattern = rf"^\S*python\S* (-\S+ )*\S*collagan\S* train .*{self.run}"
        return [(node, process) for node, process, command in self.commands() if re.match(pattern, command)]

    def kill_rank(self, node: str) -> None:
        (process,) = [process for place, process in self.ranks() if place == node]
        self.cluster.on(node, "kill", "-9", process)

    def commands(self) -> list[tuple[str, str, str]]:
        """(node, process id, command line) of all processes that name the run."""
        found = []
        for node in self.cluster.with_power:
            for line in self.cluster.on(node, "ps", "axww", "-o", "pid=,args=").splitlines():
                process, _, command = line.strip().partition(" ")
                if str(self.run) in command:
                    found.append((node, process, command))
        return found
