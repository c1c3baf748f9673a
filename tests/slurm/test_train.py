"""slurm/train.sh and slurm/evaluate.sh when nothing goes wrong: ranks over nodes, by both launchers."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT, collagan
from tests.slurm.cluster import Cluster
from tests.slurm.training import SMALL_JOB, TRAIN, Training, write_config
from tests.training.small import equal, weights

pytestmark = pytest.mark.slurm
BASELINES = ("--set", "evaluate.baselines=4")


def test_two_nodes_of_two_ranks_train_evaluate_report(cluster, shards, tmp_path):
    """On the data set in packed/, with a rank for each (make-believe) GPU; with the weights of four processes here, bit for bit."""
    config = write_config(tmp_path, shards.folder, schedule__steps=4, schedule__batch=8, evaluate__baselines=4)
    config.write_text(re.sub("shards: .*", "shards: null", config.read_text()))
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/faces").symlink_to(shards.folder)
    job = cluster.submit(TRAIN, config.name, "--out", "run", options=["--nodes=2", "--time=30"], cwd=tmp_path)
    training = Training(cluster, job, tmp_path / "run")
    done = training.finish()
    assert done.nodes == "n[1-2]" and done.restarts == 0 and training.notes()[-1] == "done"
    world = json.loads((training.run / "world.json").read_text())
    assert [(rank["host"], rank["launcher"]) for rank in world["ranks"]] == [
        (node, "srun") for node in ("n1", "n1", "n2", "n2")
    ]
    assert json.loads((training.run / "metrics.json").read_text())["samples"] == shards.samples("test")
    assert (training.run / "report.html").stat().st_size > 1000
    assert "slurm: trains small.yaml into run, by 4 ranks on 2 nodes with 2 GPUs each\n" in training.log()
    record = (training.run / f"logs/slurm-{job}.txt").read_text()
    assert "\n# data: packed/faces\n" in record
    collagan("train", config, "--data", shards.folder, "--out", tmp_path / "processes", ranks=4)
    assert equal(weights(training.run, 4), weights(tmp_path / "processes", 4))


@contextmanager
def names_on_loopback(cluster: Cluster, nodes: list[str], folder: Path) -> Iterator[None]:
    """Inside, each of these nodes resolves its own name to 127.0.1.1, as Debian installs it."""
    known = (cluster.folder / "hosts").read_text().splitlines()
    for node in nodes:
        lines = [f"127.0.1.1 {node}" if line.split()[1] == node else line for line in known]
        (folder / f"hosts-{node}").write_text("\n".join(lines) + "\n")
        cluster.on(node, "mount", "--bind", folder / f"hosts-{node}", "/etc/hosts")
    try:
        yield
    finally:
        for node in nodes:
            cluster.on(node, "umount", "/etc/hosts")


@pytest.mark.parametrize("launcher", ["srun", "torchrun"])
def test_host_names_that_lead_to_loopback(cluster, undisturbed, tmp_path, launcher):
    """Ranks meet and talk by the interface that leads to the other node; there is no default route."""
    with names_on_loopback(cluster, ["n1", "n2"], tmp_path):
        assert cluster.on("n1", "getent", "hosts", "n1").split()[0] == "127.0.1.1"
        assert cluster.on("n1", "ip", "route", "show", "default") == ""
        sets = ["schedule.steps=10", "runtime.rendezvous_timeout=40", "runtime.timeout=40"]
        options = ["--nodelist=n1,n2", "--time=30"]
        training = Training.submit(
            cluster, undisturbed.config, tmp_path / "run", *options, sets=sets, COLLAGAN_LAUNCHER=launcher, MAX_REQUEUE="0"
        )  # fmt: skip
        training.finish()
    assert undisturbed.equals(training.run, 10)


def test_evaluate_scores_over_nodes(cluster, undisturbed, tmp_path):
    """What one process finds, and with words before the command, where a container's go."""
    words = ["--split", "valid", *BASELINES]
    collagan("evaluate", undisturbed.run, *words)
    (alone,) = (undisturbed.run / "evaluation").glob("valid-*.json")
    expected = json.loads(alone.read_text())
    alone.unlink()
    job = cluster.submit(
        ROOT / "slurm/evaluate.sh", undisturbed.run, *words, options=SMALL_JOB, cwd=tmp_path,
        env={"COLLAGAN_CONTAINER": "env COLLAGAN_INSIDE=1"},
    )  # fmt: skip
    done = cluster.wait(job, 120)
    assert (done.state, done.exit_code) == ("COMPLETED", 0), cluster.log(job)
    found = json.loads(alone.read_text())
    assert (expected.pop("machine")["ranks"], found.pop("machine")["ranks"]) == (1, 2) and found == expected


def test_a_heterogeneous_job_is_refused(cluster, undisturbed, tmp_path):
    """By the batch script, and by each rank that srun starts over both components."""
    both = [*SMALL_JOB, "--nodes=1", ":", *SMALL_JOB, "--nodes=1"]
    own = tmp_path / "own.sh"
    train = f"{sys.executable} -m collagan_dist train {undisturbed.config} --run {tmp_path / 'run'}"
    own.write_text(f"#!/bin/bash\nsrun --het-group=0,1 {train}\n")
    for job in [cluster.submit(script, undisturbed.config, options=both, cwd=tmp_path) for script in (TRAIN, own)]:
        done = cluster.wait_all(job, 120)
        log = done[0].out.read_text()
        assert done[0].exit_code == 2 and all(task.restarts == 0 for task in done), log
        assert "a heterogeneous job" in log and "submit a job of one component" in log
    assert not (tmp_path / "run").exists() and not (tmp_path / "runs").exists()


def test_a_wrong_launcher_starts_no_rank(cluster, tmp_path):
    job = cluster.submit(TRAIN, "demo", options=SMALL_JOB, cwd=tmp_path, env={"COLLAGAN_LAUNCHER": "mpirun"})
    assert cluster.wait(job).exit_code == 2 and "choose srun or torchrun" in cluster.log(job)
    assert not (tmp_path / "runs").exists()
