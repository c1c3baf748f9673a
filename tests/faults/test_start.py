"""Starts that cannot succeed, by the rows of docs/faults.md: one message, the right exit code, and nobody waits for ever."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from collagan_dist.config.load import to_yaml
from collagan_dist.data.packing.pack import pack
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.doctor import jit_locks
from collagan_dist.faces.layout import draw_faces
from tests.conftest import ROOT, small_recipe
from tests.doctor.locks import plant_lock
from tests.faults.starts import as_rank, free_port, run_ranks
from tests.faults.test_bad_input import run
from tests.slurm.machine import Machine, missing
from tests.training.small import small

WAIT = 4  # runtime.rendezvous_timeout of these tests, in seconds


@pytest.fixture
def configuration(shards: Manifest, tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(
        to_yaml(
            small(
                shards.folder,
                runtime__rendezvous_timeout=WAIT,
                runtime__timeout=60,
                schedule__steps=1,
                schedule__batch=12,
            )
        )
    )
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nschedule:\n  batchs: 8\n", r"3: unknown key schedule.batchs; did you mean batch"),
        ("seed: 1\nschedule:\n  batch: many\n", r"3: schedule.batch: "),
        ("loss:\n  weights:\n    inpainting:\n      rec: .nan\n", r"4: \.nan is not a finite number"),
        ("seed: 1\nlog: !!python/object/apply:os.system ['touch CANARY']\n", r"2: YAML tags"),
        ("seed: 1\n\nseed: 2\n", r"3: .*seed.*(twice|duplicate|again|already)"),
        ("schedule:\n  batch: 8\noptim:\n  generator:\n    lr: 1e-4\n", None),
    ],
    ids=["unknown key", "wrong type", "NaN weight", "python tag", "duplicate key", "1e-4"],
)
def test_row_14_a_configuration_that_is_wrong(
    text: str,
    message: str | None,
    shards: Manifest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Refused with file, line and key before any device is touched; a number in scientific notation is a number."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    code, error = run(capsys, "train", path, "--data", shards.folder, "--set", "schedule.epochs=1", "--dry-run")
    assert not (tmp_path / "CANARY").exists()
    if message is None:
        assert (code, error) == (0, "")
    else:
        assert code == 2 and re.search(rf"{path}:{message}", error) and len(error.splitlines()) == 1, error


def test_row_15_somebody_is_missing(configuration: Path, tmp_path: Path) -> None:
    """Of three ranks the one that never came is named, once, and nothing was started."""
    command, port = ["train", configuration, "--run", tmp_path / "run"], free_port()
    ranks = run_ranks([command] * 2, [as_rank(rank, 3, port) for rank in (0, 2)], tmp_path)
    assert [rank.code for rank in ranks] == [4, 4] and not (tmp_path / "run").exists()
    assert re.search(r"1 of 3 ranks did not come .* missing rank 1; those that came: ranks 0, 2 \(", ranks[0].err)
    assert "collagan doctor --net" in ranks[0].err and len(ranks[0].err.splitlines()) == 1
    assert not ranks[1].err  # rank 0 has said it


@pytest.mark.skipif(missing() is not None, reason=missing() or "")
def test_row_15_packets_are_swallowed(configuration: Path, tmp_path: Path) -> None:
    """No refusal, no answer, only silence."""
    port = free_port()
    silence = (  # a cable to nobody who has the address that it is sure of
        "ip link add here type veth peer name gone; ip addr add 10.9.0.1/24 dev here; ip link set lo up; ip link set gone up; "
        'ip link set here up; ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev here; exec "$@"'
    )
    prefix = ["unshare", "--net", "sh", "-ec", silence, "sh"]
    begin = time.monotonic()
    (rank,) = run_ranks([["train", configuration]], [as_rank(1, 2, port, "10.9.0.2")], tmp_path, prefix)
    assert rank.code == 4 and f"10.9.0.2 is silent on port {port}" in rank.err and "firewall" in rank.err
    assert time.monotonic() - begin < 150 and len(rank.err.splitlines()) == 1


@pytest.mark.skipif(missing() is not None, reason=missing() or "")
def test_row_15_names_that_mean_loopback(tmp_path: Path) -> None:
    """Debian's hosts file: each node's own name is 127.0.1.1 to itself. The ranks find the way without being told."""
    port, env = free_port(), {**os.environ, "SLURM_CONF": "/dev/null"}
    Path("/tmp/ray").mkdir(exist_ok=True)
    addresses = {"n1": "10.78.0.1", "n2": "10.78.0.2"}
    machines = []
    try:
        head = Machine("head", _hosts(tmp_path / "head.hosts", {}), ["sleep", "300"], tmp_path / "head", env)
        machines.append(head)
        head.switch("10.78.0.254/24")
        head.start()
        for rank, (name, address) in enumerate(addresses.items()):
            hosts = _hosts(tmp_path / f"{name}.hosts", {**addresses, name: "127.0.1.1"})
            own = as_rank(rank, 2, port, "n1") | {
                "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
                "SLURM_NODEID": str(rank),
                "SLURM_LOCALID": "0",
            }
            command = [sys.executable, "-m", "tests.faults.meet", tmp_path / f"{name}.met"]
            machine = Machine(name, hosts, command, tmp_path / name, own)
            machines.append(machine)
            machine.connect(head, f"{address}/24")
        for machine in machines[1:]:
            machine.start()
        met = [tmp_path / "n1.met", tmp_path / "n2.met"]
        end = time.monotonic() + 120
        while not all(path.exists() for path in met) and any(m.alive for m in machines[1:]) and time.monotonic() < end:
            time.sleep(0.1)
        assert [path.read_text() for path in met if path.exists()] == ["3.0 eth0"] * 2, (
            tmp_path / "n1"
        ).read_text() + (tmp_path / "n2").read_text()
    finally:
        for machine in reversed(machines):
            machine.kill()


def _hosts(path: Path, addresses: dict[str, str]) -> Path:
    path.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in addresses.items()))
    return path


def test_row_17_nodes_differ(configuration: Path, shards: Manifest, tmp_path: Path) -> None:
    """Another configuration, another data set and an edited package: one table, from rank 0, before anything is built."""
    draw_faces(tmp_path / "faces", count=60, seed=4, workers=1)
    pack(small_recipe(tmp_path / "faces", tmp_path / "packed"), workers=1)
    shutil.copytree(ROOT / "collagan_dist", tmp_path / "edited/collagan_dist")
    with (tmp_path / "edited/collagan_dist/losses.py").open("a") as file:
        file.write("# a comment more\n")
    train = ["train", configuration, "--run", "run"]
    other = [*train, "--data", tmp_path / "packed", "--set", "seed=9", "--set", "data.threads=2"]
    port, edited = free_port(), {"PYTHONPATH": str(tmp_path / "edited")}
    first, second = run_ranks([train, other], [as_rank(0, 2, port), as_rank(1, 2, port) | edited], tmp_path)
    assert (first.code, second.code) == (4, 4) and not second.err and not (tmp_path / "run").exists(), first.err
    table = [line.split() for line in first.err.splitlines()[1:-1]]
    here = f"({socket.gethostname()})"
    assert table[0] == ["rank", "0", here, "rank", "1", here]
    # data.threads is a node's own.
    assert [line[:-2] for line in table[2:]] == [["data", "set"], ["seed"]] and table[3] == ["seed", "0", "9"], (
        first.err
    )
    assert table[1][0] == "collagan_dist" and table[1][2] != table[1][4] and table[2][2] == shards.hash[:12]


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("deepspeed", "collagan_dist.distributed.deepspeed")),
    reason="no DeepSpeed",
)
def test_row_18_a_start_with_deepspeed_does_not_wait_for_it(configuration: Path, tmp_path: Path) -> None:
    lock = plant_lock(tmp_path / "extensions", jit_locks.STALE_AFTER_SECONDS + 60)
    command = ["train", configuration, "--run", "run", "--set", "runtime.engine=deepspeed"]
    port, own = free_port(), {"TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions")}
    (rank,) = run_ranks([command], [as_rank(0, 1, port) | own], tmp_path)
    assert rank.code == 0, rank.err
    assert lock.exists()  # nothing is compiled, so it is nobody's concern here; `collagan doctor` names it


def _agent(endpoint: str, command: list[object], log: Path) -> subprocess.Popen[bytes]:
    """torchrun as on one node of an elastic job.

    (torch 2.13 shares a store between starts, of which an agent that joins later is never told: hence the variable.)
    """
    where = ["--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", "test", "--local-addr", "127.0.0.1"]
    elastic = [
        "--nnodes",
        "1:2",
        "--nproc-per-node",
        "1",
        "--rdzv-conf",
        "last_call_timeout=2",
        "--monitor-interval",
        "0.5",
    ]
    words = [sys.executable, "-m", "torch.distributed.run", *where, *elastic, "-m", "--", "collagan_dist", *command]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with log.open("wb") as out:
        return subprocess.Popen(list(map(str, words)), cwd=ROOT, stdout=out, stderr=out, env=env)


def _records(run_folder: Path) -> list[dict[str, Any]]:
    path = run_folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_node_joins_an_elastic_training(shards: Manifest, tmp_path: Path) -> None:
    """torchrun --nnodes 1:2: the one rank saves and stops, and two go on at the next step."""
    path, run_folder = tmp_path / "small.yaml", tmp_path / "run"
    path.write_text(to_yaml(small(shards.folder, schedule__steps=1_000_000, log__every=1, log__grid_every=1_000_000)))
    command, endpoint = ["train", path, "--run", run_folder], f"127.0.0.1:{free_port()}"
    agents = [_agent(endpoint, command, tmp_path / "first")]

    def until(size: int) -> None:
        """Until so many ranks have taken a step together."""
        end = time.monotonic() + 120
        while True:
            found = _records(run_folder)
            if {"train"} <= {
                one["kind"] for i, one in enumerate(found) if any(o.get("world_size") == size for o in found[:i])
            }:
                return
            alive = all(agent.poll() is None for agent in agents)
            assert alive and time.monotonic() < end, "".join(
                log.read_text() for log in tmp_path.glob("*st") if log.is_file()
            )
            time.sleep(0.2)

    try:
        until(1)
        agents.append(_agent(endpoint, command, tmp_path / "last"))
        until(2)
    finally:
        for agent in agents:
            agent.terminate()
        for agent in agents:
            agent.wait()
    found = _records(run_folder)
    steps = [one["step"] for one in found if one["kind"] == "train"]
    assert [one["world_size"] for one in found if "world_size" in one] == [1, 2] and steps == list(
        range(1, len(steps) + 1)
    )
