"""Sweeps over several Ray nodes, one of which is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from collagan_dist.data.shards.manifest import Manifest
from tests.sweep.ray_nodes import QUIET, descendants, power_off, ray_cluster, start, wait_for
from tests.sweep.small import STEPS, Sweep, left_alone
from tests.training.small import equal, weights

SPACE = {"metric": "psnr_hole", "space": {"optim.generator.lr": {"loguniform": [1e-3, 1e-1]}}}


def test_row_32_a_ray_node_is_lost(shards: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight trials over three nodes, one of which loses power: its trial goes on elsewhere from its checkpoint, and all end as
    they would have on one machine alone."""
    data = Path(str(shards.folder))
    alone = Sweep(tmp_path / "alone", data, SPACE, "--trials", 8)
    alone.run()
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    with ray_cluster(3) as (address, nodes):
        sweep = Sweep(tmp_path / "nodes", data, SPACE, "--trials", 8, "--ray", address)
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
    assert [row["status"] for row in rows] == ["done"] * 8 and sum(int(row["restarts"]) for row in rows) == 1
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


def test_a_sweep_that_waits_for_room_ends_when_asked(
    shards: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else has the cluster: nothing runs that would have to save."""
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    with (
        ray_cluster(1) as (address, _),
        left_alone(subprocess.Popen([sys.executable, "-c", HOLDER, address, tmp_path / "held"])) as holder,
    ):
        sweep = Sweep(tmp_path, Path(str(shards.folder)), SPACE, "--trials", 2, "--ray", address)
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
def test_a_sweep_whose_last_node_is_lost_waits_for_another(
    shards: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, and goes on by itself when there is one."""
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    with ray_cluster(1, cpus=0) as (address, nodes):
        join = (f"--address={address}", "--num-cpus=1", "--object-store-memory=100000000")
        nodes.append(start(*join))
        wait_for(address, 2)
        sweep = Sweep(tmp_path, Path(str(shards.folder)), SPACE, "--trials", 2, "--ray", address)
        with left_alone(sweep.start()) as process:
            sweep.until(process, lambda: sweep.saved(0) >= 2)
            power_off(nodes.pop())
            sweep.until(process, lambda: "has what a trial takes: the sweep waits" in sweep.log.read_text())
            nodes.append(start(*join))
            assert process.wait(200) == 0, sweep.log.read_text()
    said = sweep.log.read_text()
    assert said.index("has what a trial takes: the sweep waits") < said.index("there is room again"), said
    assert [row["status"] for row in sweep.rows()] == ["done"] * 2


def midway(sweep: Sweep, node: int) -> bool:
    """Whether a trial on a node is between its first checkpoints and its end. It then stands still."""
    family = descendants(node)
    for number in range(8):
        world = sweep.trial(number) / "world.json"
        pid = json.loads(world.read_text())["ranks"][0]["pid"] if world.exists() else None
        if pid in family and sweep.saved(number) >= 8:
            os.kill(pid, signal.SIGSTOP)
            if sweep.saved(number) < STEPS:
                return True
            os.kill(pid, signal.SIGCONT)
    return False
