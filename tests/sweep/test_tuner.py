import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from collagan_dist.sweep.tuner import _loss_reason
from tests.sweep.ray_nodes import QUIET, descendants, power_off, ray_cluster, start, wait_for
from tests.sweep.small import LR_SPACE, LR_TRIALS, STEPS, Sweep, left_alone, sweep_on_one_machine
from tests.training.small import equal, weights


def test_row_32_a_ray_node_is_lost(shards, tmp_path, tmp_path_factory, monkeypatch):
    """One of three nodes loses power: its trial continues elsewhere from its checkpoint, and all end as on one machine."""
    data = Path(str(shards.folder))
    alone = sweep_on_one_machine(data, tmp_path_factory)
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    with ray_cluster(3) as (address, nodes):
        sweep = Sweep(tmp_path / "nodes", data, LR_SPACE, "--trials", LR_TRIALS, "--ray", address)
        sweep.words[sweep.words.index(data)] = os.path.relpath(data)  # nodes were started in another folder
        with left_alone(sweep.start()) as process:
            sweep.until(process, lambda: midway(sweep, nodes[2].pid))
            power_off(nodes[2])
            assert process.wait(450) == 0, sweep.log.read_text()
    said = sweep.log.read_text()
    assert re.search(
        r"trial \d+ starts again from its newest checkpoint: its (node is gone|node does not answer|process was killed)",
        said,
    ), said
    rows = sweep.rows()
    assert [row["status"] for row in rows] == ["done"] * LR_TRIALS and sum(int(row["restarts"]) for row in rows) == 1
    assert [{**row, "restarts": "0"} for row in rows] == alone.rows()
    for number, row in enumerate(rows):
        assert equal(weights(sweep.trial(number), STEPS), weights(alone.trial(number), STEPS))
        starts = sweep.starts(number)
        assert [name for name, _ in starts] == ["start"] + ["resume"] * int(row["restarts"])
        # Nothing older than a checkpoint was lost.
        assert all(8 <= step < STEPS for name, step in starts if name == "resume")


HOLDER = """
import ray, sys, time
ray.init(address=sys.argv[1], log_to_driver=False)
hold = ray.remote(num_cpus=1)(lambda file: open(file, "w").close() or time.sleep(600))
ray.get(hold.remote(sys.argv[2]))
"""


def test_a_sweep_that_waits_for_resources_can_be_interrupted(shards, tmp_path, monkeypatch):
    """Somebody else has the cluster: nothing runs that would have to save."""
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    with (
        ray_cluster(1) as (address, _),
        left_alone(subprocess.Popen([sys.executable, "-c", HOLDER, address, tmp_path / "held"])) as holder,
    ):
        sweep = Sweep(tmp_path, Path(str(shards.folder)), LR_SPACE, "--trials", 2, "--ray", address)
        sweep.log.touch()
        sweep.until(holder, (tmp_path / "held").exists)
        with left_alone(sweep.start()) as process:
            sweep.until(process, lambda: "others use what the cluster has: the sweep waits" in sweep.log.read_text())
            process.send_signal(signal.SIGINT)
            assert process.wait(40) == 75, sweep.log.read_text()
        assert not (sweep.trial(0) / "checkpoints").exists()
        holder.kill()
        holder.wait()
        sweep.run()
    assert [row["status"] for row in sweep.rows()] == ["done"] * 2


@pytest.mark.full
def test_a_sweep_whose_last_node_is_lost_waits_for_another(shards, tmp_path, monkeypatch):
    """It says so, and goes on by itself when there is one."""
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    with ray_cluster(1, cpus=0) as (address, nodes):
        join = (f"--address={address}", "--num-cpus=1", "--object-store-memory=100000000")
        nodes.append(start(*join))
        wait_for(address, 2)
        sweep = Sweep(tmp_path, Path(str(shards.folder)), LR_SPACE, "--trials", 2, "--ray", address)
        with left_alone(sweep.start()) as process:
            sweep.until(process, lambda: sweep.saved(0) >= 2)
            power_off(nodes.pop())
            sweep.until(process, lambda: "has what a trial takes: the sweep waits" in sweep.log.read_text())
            nodes.append(start(*join))
            assert process.wait(200) == 0, sweep.log.read_text()
    said = sweep.log.read_text()
    assert said.index("has what a trial takes: the sweep waits") < said.index("there is room again"), said
    assert [row["status"] for row in sweep.rows()] == ["done"] * 2


@dataclass
class TuneTrial:
    error_file: Path | None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Failure # 1\nThe actor died because its node has died.", "its node is gone"),
        ("Failure # 1\nTask was killed: memory usage threshold", "its node ran short of memory, and Ray ended its process"),
        ("Failure # 1\nnode has died\nFailure # 2\nThe actor died unexpectedly", "its process was killed: .*"),
        ("Failure # 1\ncollagan_dist.errors.ClusterError: a rank of trial t001 is gone\nnode has died", "a rank of trial t001 is gone"),
        ("Failure # 1\nOddError: 3\n", "OddError: 3"),
        (None, "its process is gone"),
    ],
)  # fmt: skip
def test_the_reason_of_a_loss(text, reason, tmp_path):
    """Of the last failure: our own words first, else what Ray's mean, else Ray's last line."""
    (tmp_path / "error.txt").write_text(text or "")
    assert re.fullmatch(reason, _loss_reason(TuneTrial(tmp_path / "error.txt" if text else None)))


def midway(sweep: Sweep, node: int) -> bool:
    """Whether a trial on a node is between its first checkpoints and its end. It then stands still."""
    family = descendants(node)
    for number in range(LR_TRIALS):
        world = sweep.trial(number) / "world.json"
        pid = json.loads(world.read_text())["ranks"][0]["pid"] if world.exists() else None
        if pid in family and sweep.saved(number) >= 8:
            os.kill(pid, signal.SIGSTOP)
            if sweep.saved(number) < STEPS:
                return True
            os.kill(pid, signal.SIGCONT)
    return False
