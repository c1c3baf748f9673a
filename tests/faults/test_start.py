"""Starts that cannot succeed, by the rows of docs/faults.md: one message, the right exit code, and nobody waits for ever."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from collagan_dist.config.load import to_yaml
from collagan_dist.data.packing.pack import pack
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.faces.layout import draw_faces
from tests.conftest import ROOT, small_recipe
from tests.faults.processes import Ranks, as_rank, free_port, records, until
from tests.slurm.machine import Machine, missing
from tests.training.small import small

needs_machines = pytest.mark.skipif(missing() is not None, reason=missing() or "")


@pytest.fixture
def train(shards: Manifest, tmp_path: Path) -> list[object]:
    """A command that trains for one step, or waits for 4 seconds for other ranks."""
    path, runtime = tmp_path / "small.yaml", {"rendezvous_timeout": 4, "timeout": 60, "threads": 1}
    path.write_text(to_yaml(small(shards.folder, runtime=runtime, schedule__steps=1, schedule__batch=12)))
    return ["collagan_dist", "train", path, "--run", tmp_path / "run"]


def bare(**variables: object) -> dict[str, str]:
    """An environment without a launcher, but for these variables."""
    own = {name: value for name, value in as_rank(0, 1, 1).items() if not name.startswith(("SLURM_", "MASTER_"))}
    return own | {name: str(value) for name, value in variables.items()}


@pytest.mark.parametrize("launcher", ["a loop", "deepspeed", "Open MPI"])
def test_ranks_of_other_launchers_train_together(train, tmp_path, launcher):
    port, environments, words = free_port(), [], []
    for rank in range(2):
        names = (
            [f"OMPI_COMM_WORLD_{name}" for name in ("RANK", "SIZE")]
            if launcher == "Open MPI"
            else ["RANK", "WORLD_SIZE"]
        )
        numbers = dict(zip(names, (rank, 2), strict=True))
        environments.append(bare(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, **numbers))
        words.append(["collagan_dist", f"--local_rank={rank}", *train[1:]] if launcher == "deepspeed" else train)
    with Ranks(tmp_path, *words, environments=environments) as ranks:
        assert ranks.end() == [0, 0], ranks.output()
    world = json.loads((tmp_path / "run/world.json").read_text())
    assert world["world_size"] == 2 and "--local_rank" not in world["command"]
    assert {rank["launcher"] for rank in world["ranks"]} == {"mpi" if launcher == "Open MPI" else "environment"}


@pytest.mark.parametrize("command", ["train", "evaluate", "doctor"])
@pytest.mark.parametrize(
    "variables", [{"OMPI_COMM_WORLD_RANK": 1, "OMPI_COMM_WORLD_SIZE": 2}, {"RANK": 1, "WORLD_SIZE": 2}]
)
def test_a_launcher_that_is_not_understood_is_refused(train, tmp_path, command, variables):
    """Before anything is read or written, by one line."""
    words = {"train": train, "evaluate": ["collagan_dist", "evaluate", tmp_path], "doctor": ["collagan_dist", "doctor"]}
    with Ranks(tmp_path, words[command], environments=[bare(**variables)]) as rank:
        assert rank.end() == [2], rank.output()
        assert len(rank.output().splitlines()) == 1 and "start through torchrun or srun" in rank.output()
    assert not (tmp_path / "run").exists()


@needs_machines
def test_row_15_packets_are_swallowed(train, tmp_path):
    """No refusal, no answer, only silence."""
    silence = (  # a cable to nobody who has the address that it is sure of
        "ip link add here type veth peer name gone; ip addr add 10.9.0.1/24 dev here; ip link set lo up; ip link set gone up; "
        'ip link set here up; ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev here; exec "$@"'
    )
    own, prefix = [as_rank(1, 2, 29500, "10.9.0.2")], ["unshare", "--net", "sh", "-ec", silence, "sh"]
    with Ranks(tmp_path, train, environments=own, prefix=prefix) as rank:
        assert rank.end() == [4] and "10.9.0.2 is silent on port 29500" in rank.output(), rank.output()
        assert "firewall" in rank.output() and len(rank.output().splitlines()) == 1


@needs_machines
def test_row_15_names_that_mean_loopback(tmp_path):
    """Debian's hosts file: each node's own name is 127.0.1.1 to itself. The ranks find the way without being told."""
    port, addresses = free_port(), {"n1": "10.78.0.1", "n2": "10.78.0.2"}
    Path("/tmp/ray").mkdir(exist_ok=True)
    env = {**os.environ, "SLURM_CONF": "/dev/null"}
    machines = [Machine("head", _hosts(tmp_path / "head.hosts", {}), ["sleep", "300"], tmp_path / "head", env)]
    try:
        machines[0].switch("10.78.0.254/24")
        machines[0].start()
        for rank, (name, address) in enumerate(addresses.items()):
            hosts = _hosts(tmp_path / f"{name}.hosts", {**addresses, name: "127.0.1.1"})
            nodes = {"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_NODEID": str(rank), "SLURM_LOCALID": "0"}
            command = [sys.executable, "-m", "tests.faults.meet", tmp_path / f"{name}.met"]
            machines.append(Machine(name, hosts, command, tmp_path / name, as_rank(rank, 2, port, "n1") | nodes))
            machines[-1].connect(machines[0], f"{address}/24")
        for machine in machines[1:]:
            machine.start()
        met = [tmp_path / "n1.met", tmp_path / "n2.met"]
        until(lambda: all(path.exists() for path in met) or not any(m.alive for m in machines[1:]))
        logs = [(tmp_path / name).read_text() for name in addresses]
        assert [path.read_text() for path in met if path.exists()] == ["3.0 eth0"] * 2, logs
    finally:
        for machine in reversed(machines):
            machine.kill()


def _hosts(path: Path, addresses: dict[str, str]) -> Path:
    path.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in addresses.items()))
    return path


def test_row_17_nodes_differ(train, shards, tmp_path):
    """Another configuration, another data set and an edited package: one table, from rank 0, before anything is built."""
    draw_faces(tmp_path / "faces", count=60, seed=4, workers=1)
    pack(small_recipe(tmp_path / "faces", tmp_path / "packed"), workers=1)
    shutil.copytree(ROOT / "collagan_dist", tmp_path / "edited/collagan_dist")
    with (tmp_path / "edited/collagan_dist/losses.py").open("a") as file:
        file.write("# a comment more\n")
    other = [*train, "--data", tmp_path / "packed", "--set", "seed=9", "--set", "data.threads=2"]
    port, edited = free_port(), {"PYTHONPATH": str(tmp_path / "edited")}
    own = [as_rank(0, 2, port), as_rank(1, 2, port) | edited]
    with Ranks(tmp_path, train, other, environments=own) as ranks:
        assert ranks.end() == [4, 4] and not ranks.output(1) and not (tmp_path / "run").exists(), ranks.output()
        plan, said, *lines, _ = ranks.output(0).splitlines()
    assert "1 steps of 12 over 48 samples, 2 rank(s)" in plan and "do not agree" in said
    table = [line.split() for line in lines]
    here = f"({socket.gethostname()})"
    assert table[0] == ["rank", "0", here, "rank", "1", here]
    # data.threads is a node's own.
    assert [line[:-2] for line in table[2:]] == [["data", "set"], ["seed"]] and table[3] == ["seed", "0", "9"], table
    assert table[1][0] == "collagan_dist" and table[1][2] != table[1][4] and table[2][2] == shards.hash[:12]


def _agent(endpoint: str, command: list[object], log: Path) -> subprocess.Popen[bytes]:
    """torchrun as on one node of an elastic job.

    (torch 2.13 shares a store between starts, of which an agent that joins later is never told: hence the variable.)
    """
    where = ["--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", "test", "--local-addr", "127.0.0.1"]
    elastic = ["--nnodes", "1:2", "--rdzv-conf", "last_call_timeout=2", "--monitor-interval", "0.5"]
    words = [sys.executable, "-m", "torch.distributed.run", *where, *elastic, "-m", "--", *map(str, command)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with log.open("wb") as out:
        return subprocess.Popen(words, cwd=ROOT, stdout=out, stderr=out, env=env)


def test_a_node_joins_an_elastic_training(train, tmp_path):
    """torchrun --nnodes 1:2: the one rank saves and stops, and two go on at the next step."""
    command = [*train, "--set", "schedule.steps=1000000", "--set", "log.every=1", "--set", "log.grid_every=1000000"]
    endpoint, logs, agents = f"127.0.0.1:{free_port()}", [tmp_path / "first", tmp_path / "last"], []
    try:
        for size, log in enumerate(logs, 1):
            agents.append(_agent(endpoint, command, log))
            until(lambda: _has_trained(tmp_path / "run", size), lambda: all(a.poll() is None for a in agents))  # noqa: B023
    finally:
        for agent in agents:
            agent.terminate()
        for agent in agents:
            agent.wait()
    found = records(tmp_path / "run")
    steps = [one["step"] for one in found if one["kind"] == "train"]
    assert [one["world_size"] for one in found if "world_size" in one] == [1, 2]
    assert steps == list(range(1, len(steps) + 1)), [log.read_text() for log in logs]


def _has_trained(run_folder: Path, size: int) -> bool:
    """Whether so many ranks have taken a step together."""
    found = records(run_folder)
    starts = [number for number, one in enumerate(found) if one.get("world_size") == size]
    return bool(starts) and any(one["kind"] == "train" for one in found[starts[0] :])
