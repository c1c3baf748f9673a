"""The test cluster itself: nodes are separate machines, and nothing is left behind."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.slurm.cluster import RAY, Cluster, shared_with_other_clusters
from tests.slurm.configuration import FREEZER, proctrack

pytestmark = pytest.mark.slurm
MARK = b"SLURM_CONF=/tmp/collagan-slurm-"  # in the environment of all processes of a cluster


def traces() -> dict[str, set[str]]:
    """All that clusters have on this machine or could leave behind."""
    links = "\n".join(subprocess.getoutput(f"ip -brief {what}") for what in ("link", "netns"))
    return {
        "processes": {p.parent.name for p in Path("/proc").glob("[0-9]*/environ") if MARK in _read(p)},
        "mounts": set(Path("/proc/self/mountinfo").read_text().splitlines()),
        "networks": set(links.splitlines()),
        "cgroups": {str(p) for p in FREEZER.glob("slurm_*")},
        "folders": {str(p) for p in Path("/tmp").glob("collagan-slurm-*")} | {str(p) for p in [RAY] if p.exists()},
    }


def left_since(before: dict[str, set[str]]) -> dict[str, set[str]]:
    return {kind: found - before[kind] for kind, found in traces().items() if found - before[kind]}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process has ended
        return b""


JOB = ["--wrap=(setsid sleep 4321 &); echo up; sleep 4321"]  # one of its processes has lost its parent
ALONE = f"""
import time
from tests.slurm.cluster import Cluster
with Cluster(nodes=1) as cluster:
    job = cluster.submit(None, options={JOB}, cwd=cluster.folder)
    cluster.until(lambda: "up" in cluster.log(job), 30, "the job to run", job)
    print(cluster.folder, flush=True)
    time.sleep(600)
"""


def test_nothing_is_left(tmp_path):
    """After a block that fails with a job under way, beside another cluster; also without GPUs, even make-believe ones.

    First in this file: while the shared cluster of the other tests runs, it keeps what clusters share.
    """
    before, other = traces(), Cluster(nodes=1, gpus=0)
    with Cluster(nodes=2) as beside:
        with pytest.raises(ZeroDivisionError), other:
            job = other.submit(None, options=["--gpus-per-node=0", *JOB], cwd=tmp_path)
            other.until(lambda: "up" in other.log(job), 30, "the job to run", job)
            assert len(traces()["processes"]) >= 6 + 10 and str(other.folder) in traces()["folders"]
            assert traces()["networks"] == before["networks"] and traces()["mounts"] == before["mounts"]
            raise ZeroDivisionError
        assert beside.run("srun", "-N2", "-l", "ls", "-d", RAY).count("/tmp/ray") == 2
    assert left_since(before) == {}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_cluster_ends_with_its_owner(how):
    """Ctrl-C in the middle leaves nothing; even kill -9 leaves no process, only files."""
    before = traces()
    owner = subprocess.Popen(
        [sys.executable, "-c", ALONE], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests that run in the background ignore it
    )  # fmt: skip
    folder = owner.stdout.readline().strip()
    assert len(traces()["processes"] - before["processes"]) >= 8
    owner.send_signal(how)
    owner.communicate()
    if how == signal.SIGKILL:
        with shared_with_other_clusters():  # the next cluster takes away what this one shared
            assert folder in traces()["folders"]
        shutil.rmtree(folder)
    end = time.monotonic() + 10
    while left_since(before) and time.monotonic() < end:
        time.sleep(0.1)
    assert left_since(before) == {}


def test_nodes_are_machines_of_their_own(cluster):
    assert sorted(cluster.run("srun", "-N3", "-l", "hostname").splitlines()) == ["0: n1", "1: n2", "2: n3"]
    cluster.on("n1", "touch", "/dev/shm/mine", RAY / "mine")
    assert cluster.on("n1", "ls", "/dev/shm", RAY).count("mine") == 2
    assert "mine" not in cluster.on("n2", "ls", "/dev/shm", RAY) and not (RAY / "mine").exists()
    assert cluster.on("n1", "getent", "hosts", "n2").split() == ["10.77.0.2", "n2"]
    assert "pytest" not in cluster.on("n2", "ps", "ax") and "slurmd -D -N n2" in cluster.on("n2", "ps", "ax")


def test_a_job_of_a_user(cluster, tmp_path):
    show = 'sh -c "echo \\$SLURM_PROCID \\$(hostname)"'
    wrap = f"--wrap=pwd; srun --ntasks=4 {show} | sort; command -v collagan || exit 3"
    for found, code in ((True, 0), (False, 3)):
        job = cluster.submit(None, options=["-N2", "--ntasks-per-node=2", wrap], cwd=tmp_path, collagan=found)
        done = cluster.wait(job)
        assert (done.state, done.exit_code) == ("FAILED" if code else "COMPLETED", code), cluster.log(job)
        assert cluster.log(job).splitlines()[:5] == [str(tmp_path), "0 n1", "1 n1", "2 n2", "3 n2"]


@pytest.mark.skipif(
    proctrack() != "cgroup", reason="no cgroup v1 freezer: Slurm does not find processes that left their parent"
)
def test_a_cancelled_job_leaves_no_process(cluster, tmp_path):
    job = cluster.submit(None, options=["-w", "n2", *JOB], cwd=tmp_path)
    cluster.until(lambda: "up" in cluster.log(job), 30, "the job to run", job)
    assert cluster.on("n2", "ps", "ax").count("sleep 4321") == 2
    cluster.cancel(job)
    assert cluster.wait(job).state == "CANCELLED"
    cluster.until(lambda: "sleep 4321" not in cluster.on("n2", "ps", "ax"), 30, "its processes to end")
