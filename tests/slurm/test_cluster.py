"""The test cluster itself: nodes apart from each other, faults that can be caused, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.slurm.cluster import RAY, Cluster
from tests.slurm.configuration import FREEZER, proctrack

pytestmark = pytest.mark.slurm
REACH = "timeout 1 bash -c '</dev/tcp/n1/6818'"  # slurmd's port


def traces(cluster: Cluster) -> dict[str, set[str]]:
    """All that a cluster could leave on this machine: processes of it, mounts, networks, cgroups, folders."""
    environ = [(p.parent.name, _read(p)) for p in Path("/proc").glob("[0-9]*/environ")]
    return {
        "processes": {pid for pid, text in environ if str(cluster.folder) in text},
        "mounts": set(Path("/proc/self/mountinfo").read_text().splitlines()),
        "networks": set(subprocess.check_output(["ip", "-br", "link"], text=True).split("\n"))
        | set(subprocess.check_output(["ip", "netns"], text=True).split("\n")),
        "cgroups": {str(p) for p in FREEZER.glob("slurm_*")},
        "folders": {str(p) for p in (cluster.folder, RAY) if p.exists()},
    }


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


def test_nodes_are_machines_of_their_own(cluster: Cluster) -> None:
    assert sorted(cluster.run("srun", "-N3", "-l", "hostname").splitlines()) == ["0: n1", "1: n2", "2: n3"]
    cluster.on("n1", "touch", "/dev/shm/mine", RAY / "mine")
    assert cluster.on("n1", "ls", "/dev/shm", RAY).count("mine") == 2
    assert "mine" not in cluster.on("n2", "ls", "/dev/shm", RAY) and not (RAY / "mine").exists()
    assert cluster.on("n1", "getent", "hosts", "n2").split() == ["10.77.0.2", "n2"]
    assert "pytest" not in cluster.on("n2", "ps", "ax") and "slurmd -D -N n2" in cluster.on("n2", "ps", "ax")


def test_a_job_of_a_user(cluster: Cluster, tmp_path: Path) -> None:
    """The folder of submission, exit code, log, and collagan on PATH or not."""
    wrap = (
        '--wrap=pwd; srun --ntasks=4 sh -c "echo \\$SLURM_PROCID \\$(hostname)" | sort; command -v collagan || exit 3'
    )
    for found, code in ((True, 0), (False, 3)):
        job = cluster.submit(None, options=["-N2", "--ntasks-per-node=2", wrap], cwd=tmp_path, collagan=found)
        done = cluster.wait(job)
        assert (done.state, done.exit_code) == ("FAILED" if code else "COMPLETED", code), cluster.log(job)
        assert cluster.log(job).splitlines()[:5] == [str(tmp_path), "0 n1", "1 n1", "2 n2", "3 n2"]


def test_signals_and_requeue(cluster: Cluster, tmp_path: Path) -> None:
    """USR2 reaches the tasks of the steps; a requeued job runs again with its restart counted."""
    script = tmp_path / "job.sh"
    script.write_text(
        "#!/bin/bash\n#SBATCH --open-mode=append\n"
        "srun bash -c 'trap \"echo got it; exit\" USR2; echo life ${SLURM_RESTART_COUNT:-0}; for i in {1..600}; do sleep 0.1; done'\n"
    )
    job = cluster.submit(script, cwd=tmp_path)
    cluster.until(lambda: "life 0" in cluster.log(job), 30, "the first life", job)
    cluster.requeue(job)
    cluster.until(lambda: "life 1" in cluster.log(job), 60, "the second life", job)
    cluster.signal(job, "USR2")
    done = cluster.wait(job)
    assert (done.state, done.restarts) == ("COMPLETED", 1) and cluster.log(job).endswith("got it\n")


@pytest.mark.skipif(
    proctrack() != "cgroup", reason="no cgroup v1 freezer: Slurm does not find processes that left their parent"
)
def test_a_cancelled_job_leaves_no_process(cluster: Cluster, tmp_path: Path) -> None:
    job = cluster.submit(None, options=["-w", "n2", "--wrap=setsid sleep 4321 & echo up; sleep 4321"], cwd=tmp_path)
    cluster.until(lambda: "up" in cluster.log(job), 30, "the job to run", job)
    assert cluster.on("n2", "ps", "ax").count("sleep 4321") == 2
    cluster.cancel(job)
    assert cluster.wait(job).state == "CANCELLED"
    cluster.until(lambda: "sleep 4321" not in cluster.on("n2", "ps", "ax"), 30, "its processes to end")


def test_a_cable_is_cut_and_healed(cluster: Cluster) -> None:
    cluster.on("n3", "sh", "-c", REACH)
    cluster.cut("n3")
    with pytest.raises(RuntimeError, match="exit 124"):  # silence, not a refusal
        cluster.on("n3", "sh", "-c", REACH)
    cluster.on("n2", "sh", "-c", REACH)
    cluster.heal("n3")
    cluster.until(lambda: cluster.run("srun", "-w", "n3", "hostname") == "n3\n", 30, "n3 to answer")


def test_a_node_hangs_and_recovers(cluster: Cluster) -> None:
    def state() -> str:
        return cluster.on("n2", "ps", "-C", "slurmd", "-o", "state=").strip()

    cluster.freeze("n2")
    assert state() == "T"
    cluster.thaw("n2")
    assert state() == "S" and cluster.run("srun", "-w", "n2", "hostname") == "n2\n"


def test_a_node_loses_its_power(cluster: Cluster, tmp_path: Path) -> None:
    """All its processes are gone at once; Slurm requeues its job."""
    wrap = "--wrap=echo life; sleep ${SLURM_RESTART_COUNT:-4321}"
    job = cluster.submit(None, options=["-w", "n3", "--open-mode=append", wrap], cwd=tmp_path)
    cluster.until(lambda: cluster.log(job) == "life\n", 30, "the job to run", job)
    before = traces(cluster)["processes"]
    cluster.kill_node("n3")
    assert len(before) - len(traces(cluster)["processes"]) >= 5  # unshare, sh, slurmd, slurmstepd, the job's
    cluster.declare_down("n3")
    cluster.start_node("n3")
    done = cluster.wait(job)
    assert (done.state, done.restarts, cluster.log(job)) == ("COMPLETED", 1, "life\nlife\n")


def test_two_at_once_and_nothing_is_left(tmp_path: Path) -> None:
    """Beside another cluster, out of a failing block, with a job under way; also without GPUs, even make-believe ones."""
    other = Cluster(nodes=1, gpus=0)
    with pytest.raises(ZeroDivisionError), other:
        started = traces(other)
        job = other.submit(
            None, options=["--gpus-per-node=0", "--wrap=setsid sleep 4321 & echo up; sleep 4321"], cwd=tmp_path
        )
        other.until(lambda: "up" in other.log(job), 30, "the job to run", job)
        assert len(started["processes"]) >= 6 and started["folders"] == {str(other.folder), str(RAY)}
        raise ZeroDivisionError
    after = traces(other)
    assert not after["processes"] and not other.folder.exists()
    assert after["mounts"] == started["mounts"] and after["networks"] == started["networks"]


ALONE = """
import sys, time
from tests.slurm.cluster import Cluster
with Cluster(nodes=1) as cluster:
    job = cluster.submit(None, options=["--wrap=setsid sleep 4321 & echo up; sleep 4321"], cwd=cluster.folder)
    cluster.until(lambda: "up" in cluster.log(job), 30, "the job to run", job)
    print(cluster.folder, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_it_ends_with_the_tests_that_are_killed(how: signal.Signals) -> None:
    """Ctrl-C in the middle leaves nothing; even kill -9 leaves files only."""
    owner = subprocess.Popen(
        [sys.executable, "-c", ALONE], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert owner.stdout
    alone = Cluster(nodes=1)
    alone.folder = Path(owner.stdout.readline().strip())
    assert len(traces(alone)["processes"]) >= 8
    owner.send_signal(how)
    owner.communicate()
    for _ in range(100):
        if not traces(alone)["processes"]:
            break
        time.sleep(0.1)
    assert not traces(alone)["processes"]
    assert alone.folder.exists() == (how == signal.SIGKILL)


def test_a_cluster_that_does_not_come_up_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.slurm.configuration.SLURM_CONF", "NoSuchKey=1\n")
    monkeypatch.setattr("tests.slurm.cluster.START_SECONDS", 1)
    cluster = Cluster(nodes=1)
    with pytest.raises(RuntimeError, match=r"(?s)no Slurm cluster: waited 1 s.*head.out.*NoSuchKey"), cluster:
        os.abort()
    assert not traces(cluster)["processes"] and not cluster.folder.exists()
