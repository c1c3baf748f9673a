"""A real Slurm cluster on one machine: munged and slurmctld on `head`, slurmd on the nodes n1, n2, ... of a network.

    with Cluster(nodes=3) as cluster:
        job = cluster.submit(ROOT / "slurm/train.sh", "demo", options=["--nodes=2", "--gpus-per-node=0"], cwd=folder)
        assert cluster.wait(job).state == "COMPLETED", cluster.log(job)

Head and nodes are machines of their own (machine.py) on a network of their own, which the host does not see; they share the
host's files. It starts in a second or two, needs no systemd and no database, and several can run at once.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from tests.slurm import configuration
from tests.slurm.machine import Machine, missing

START_SECONDS = 30
RAY = Path("/tmp/ray")  # each node has its own: Ray would find the clusters of others there
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"}  # fmt: skip
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")


@dataclass(frozen=True)
class Job:
    """What Slurm knows of a job. `restarts`: how often it was requeued."""

    state: str
    exit_code: int
    restarts: int
    nodes: str
    out: Path

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@cache
def missing_slurm() -> str | None:
    """Why no cluster can run here, or None."""
    return missing(*DAEMONS)


class Cluster:
    """A running cluster inside a `with` block; afterwards no process, mount, network, cgroup or file of it is left.

    `cpus` per node are believed, whatever the machine has; so are `gpus`, up to 2.
    """

    def __init__(self, nodes: int = 3, cpus: int = 4, gpus: int = 2) -> None:
        self.names = [f"n{i}" for i in range(1, nodes + 1)]
        self._size = (nodes, cpus, gpus)
        self._machines: dict[str, Machine] = {}
        self._cleanup = ExitStack()

    def __enter__(self) -> Cluster:
        with (
            ExitStack() as cleanup
        ):  # in reverse: power off, what clusters share, the folder (short: it holds a socket)
            self.folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="collagan-slurm-", dir="/tmp")))
            self.folder.chmod(0o755)
            cleanup.enter_context(shared_with_other_clusters())
            cleanup.callback(self._power_off)
            self._start()
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    # Jobs

    def submit(
        self,
        script: Path | None,
        *args: object,
        options: Sequence[object] = (),
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        collagan: bool = True,
    ) -> str:
        """The id of a new job, of sbatch with a user's environment and `env`. No script: `options` have --wrap.

        `collagan`: the command is on PATH, as in an activated environment.
        """
        path = os.environ["PATH"].split(":")
        venv = str(Path(sys.executable).parent)
        path = [venv, *path] if collagan else [p for p in path if p != venv]
        words = ["sbatch", "--parsable", *options, *([script] if script else []), *args]
        return self.run(*words, cwd=cwd, env={"PATH": ":".join(path), **(env or {})}).strip()

    def tasks(self, job: str) -> list[Job]:
        """What is known of a job: one entry, or one for each task of an array."""
        return [_job(text) for text in self.run("scontrol", "show", "job", job).strip().split("\n\n")]

    def job(self, job: str) -> Job:
        """What is known of a job, or of the task JOB_N of an array."""
        (one,) = self.tasks(job)
        return one

    def wait(self, job: str, timeout: float = 60) -> Job:
        """The job when it has ended. Raises TimeoutError with its log."""
        (one,) = self.wait_all(job, timeout)
        return one

    def wait_all(self, array: str, timeout: float = 60) -> list[Job]:
        """The tasks of an array when all have ended. Raises TimeoutError with the log of one that has not."""
        self.until(lambda: all(task.ended for task in self.tasks(array)), timeout, f"job {array} to end", array)
        return self.tasks(array)

    def log(self, job: str) -> str:
        """What the job printed, over all its restarts when it appends; all tasks of an array in turn."""
        return "".join(task.out.read_text(errors="surrogateescape") for task in self.tasks(job) if task.out.exists())

    def signal(self, job: str, name: str, batch: bool = False) -> None:
        """Send USR2, TERM, ... to the tasks of the job's steps; `batch`: to its batch script instead."""
        self.run("scancel", f"--signal={name}", *(["--batch"] if batch else []), job)

    def cancel(self, job: str) -> None:
        self.run("scancel", job)

    # Nodes

    @property
    def with_power(self) -> list[str]:
        return [name for name in self.names if name in self._machines]

    def cut(self, node: str) -> None:
        """Pull the node's network cable: no connection is reset, there is only silence."""
        self._machines["head"].ip(f"link set {node} down")

    def heal(self, node: str) -> None:
        self._machines["head"].ip(f"link set {node} up")

    def kill_node(self, node: str) -> None:
        """The node's power goes: slurmd, jobs, everything on it is gone when this returns."""
        self._machines.pop(node).kill()
        self._machines["head"].disconnect(node)

    def declare_down(self, node: str) -> None:
        """Say what Slurm would notice by itself half a minute later: its jobs are requeued or ended now."""
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def start_node(self, node: str) -> None:
        """The power comes back; returns when Slurm uses the node again."""
        before = self._slurmd_start(node)
        while datetime.now() < before + timedelta(seconds=1):  # Slurm tells the two starts apart by their seconds
            time.sleep(0.05)
        self._boot(node)
        self.until(lambda: self._slurmd_start(node) > before, START_SECONDS, f"{node} to come back")
        self.until(lambda: self.states()[node] in ("idle", "mixed", "allocated"), START_SECONDS, f"{node} to be used")

    @contextmanager
    def without_power(self, node: str) -> Iterator[None]:
        self.kill_node(node)
        self.declare_down(node)
        try:
            yield
        finally:
            self.start_node(node)

    def states(self) -> dict[str, str]:
        """Of every node: idle, mixed, allocated, down, ... with * when it does not answer."""
        return dict(line.split() for line in self.run("sinfo", "-hN", "-p", "main", "-o", "%n %T").splitlines())

    def _slurmd_start(self, node: str) -> datetime:
        return datetime.fromisoformat(_field(self.run("scontrol", "show", "node", node), "SlurmdStartTime"))

    # Commands

    def run(
        self, *words: object, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 60
    ) -> str:
        """The output of a command of a user on the cluster: srun, squeue, scontrol, ... Raises when it fails."""
        return _output(self._machines["head"].client(*words), cwd, {**self._env, **(env or {})}, timeout)

    def on(self, node: str, *words: object, timeout: float = 60) -> str:
        """The output of a command inside a node (or `head`): its hostname, processes, mounts and network."""
        return _output(self._machines[node].inside(*words), None, self._env, timeout)

    def until(self, done: Callable[[], bool], timeout: float, what: str, job: str = "") -> None:
        """Wait; raises TimeoutError that shows the job's log, or the daemons'."""
        end = time.monotonic() + timeout
        while not done():
            if time.monotonic() > end:
                about = f"{self.run('scontrol', 'show', 'job', job)}\n{self.log(job)}" if job else self.daemon_logs()
                raise TimeoutError(f"waited {timeout:g} s for {what}\n{about}")
            time.sleep(0.1)

    def daemon_logs(self) -> str:
        logs = [*sorted(self.folder.glob("*.out")), *self.folder.glob("munged.log")]
        return "\n".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in logs)

    # Start and end

    def _start(self) -> None:
        configuration.write(self.folder, *self._size)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
        self._env = clean | {"SLURM_CONF": str(self.folder / "slurm.conf")}
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(1024))
        files = (
            "key-file=munge.key",
            "seed-file=munge.seed",
            "log-file=munged.log",
            "pid-file=munged.pid",
            "socket=munge.sock",
        )
        options = " ".join(f"--{file.replace('=', f'={self.folder}/')}" for file in files)
        head = self._machine("head", "sh", "-ec", f"munged --force {options}; slurmctld -D -i")
        head.switch(f"{configuration.HEAD_ADDRESS}/24")
        head.start()
        for name in self.names:
            self._boot(name)
        self.until(self._all_idle, START_SECONDS, "the cluster to come up")

    def _all_idle(self) -> bool:
        if dead := [machine.name for machine in self._machines.values() if not machine.alive]:
            raise RuntimeError(f"the daemon of {', '.join(dead)} ended\n{self.daemon_logs()}")
        try:
            return self.states() == dict.fromkeys(self.names, "idle")
        except RuntimeError:  # slurmctld does not listen yet
            return False

    def _boot(self, node: str) -> None:
        machine = self._machine(node, "slurmd", "-D", "-N", node)
        machine.connect(self._machines["head"], f"{configuration.address(int(node[1:]))}/24")
        machine.start()

    def _machine(self, name: str, *command: object) -> Machine:
        machine = Machine(name, self.folder / "hosts", command, self.folder / f"{name}.out", self._env)
        self._machines[name] = machine
        return machine

    def _power_off(self) -> None:
        for name in reversed(list(self._machines)):
            self._machines.pop(name).kill()


@contextmanager
def shared_with_other_clusters() -> Iterator[None]:
    """A folder to mount on and Slurm's cgroups: the last cluster of several takes them away."""
    RAY.mkdir(exist_ok=True)
    lock = os.open(RAY, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_SH)
    try:
        yield
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            roots = configuration.FREEZER.glob("slurm_n[0-9]*")
            groups = [Path(group) for root in roots for group, _, _ in os.walk(root, topdown=False)]
            for folder in [*groups, RAY]:
                with suppress(OSError):  # not empty: somebody else's
                    folder.rmdir()
    finally:
        os.close(lock)


def _field(record: str, name: str) -> str:
    found = re.search(rf"(?:^|\s){name}=(\S*)", record)
    assert found, f"no {name} in {record}"
    return found[1]


def _job(record: str) -> Job:
    code = int(_field(record, "ExitCode").split(":")[0])
    out = re.search(r"^ *StdOut=(.*)$", record, re.MULTILINE)
    restarts, nodes = int(_field(record, "Restarts")), _field(record, "NodeList")
    return Job(_field(record, "JobState"), code, restarts, nodes, Path(out[1] if out else ""))


def _output(command: Sequence[str], cwd: Path | None, env: Mapping[str, str], timeout: float) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, errors="surrogateescape", timeout=timeout
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
