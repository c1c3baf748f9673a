"""The test cluster itself: nodes apart from each other, faults that can be caused, nothing left behind."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.slurm.cluster import RAY, Cluster, shared_with_other_clusters
from tests.slurm.configuration import FREEZER, SLURM_CONF, proctrack

pytestmark = pytest.mark.slurm
REACH = "timeout 1 bash -c '</dev/tcp/n1/6818'"  # slurmd's port


def traces() -> dict[str, set[str]]:
    """All that clusters have on this machine or could leave behind."""
    environ = [(p.parent.name, _read(p)) for p in Path("/proc").glob("[0-9]*/environ")]
    return {
        "processes": {pid for pid, text in environ if "SLURM_CONF=/tmp/collagan-slurm-" in text},
        "mounts": set(Path("/proc/self/mountinfo").read_text().splitlines()),
        "networks": {
            line for what in ("link", "netns") for line in subprocess.getoutput(f"ip -brief {what}").splitlines()
        },
        "cgroups": {str(p) for p in FREEZER.glob("slurm_*")},
        "folders": {str(p) for p in Path("/tmp").glob("collagan-slurm-*")} | {str(p) for p in [RAY] if p.exists()},
    }


def left_since(before: dict[str, set[str]]) -> dict[str, set[str]]:
    return {kind: found - before[kind] for kind, found in traces().items() if found - before[kind]}


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


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
    assert owner.stdout
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
    """The folder of submission, exit code, log, and collagan on PATH or not."""
    wrap = (
        '--wrap=pwd; srun --ntasks=4 sh -c "echo \\$SLURM_PROCID \\$(hostname)" | sort; command -v collagan || exit 3'
    )
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


def test_jobs_are_requeued(cluster, tmp_path):
    """One is requeued by hand and sent USR2, one loses its node's power: all processes there are gone at once."""
    script = tmp_path / "job.sh"
    script.write_text(
        "#!/bin/bash\n#SBATCH --open-mode=append\nsrun bash -c '"
        'trap "echo got it; exit" USR2; echo life ${SLURM_RESTART_COUNT:-0}; for i in {1..600}; do sleep 0.1; done\'\n'
    )
    jobs = [cluster.submit(script, options=["-w", node], cwd=tmp_path) for node in ("n2", "n3")]
    for job in jobs:
        cluster.until(lambda job=job: "life 0" in cluster.log(job), 30, "the first life", job)
    cluster.requeue(jobs[0])
    before = traces()["processes"]
    cluster.kill_node("n3")
    assert len(before - traces()["processes"]) >= 6  # unshare, sh, slurmd, slurmstepds, the job's
    cluster.declare_down("n3")
    cluster.start_node("n3")
    for job in jobs:
        cluster.until(lambda job=job: "life 1" in cluster.log(job), 60, "the second life", job)
        cluster.signal(job, "USR2")
        done = cluster.wait(job)
        assert (done.state, done.restarts) == ("COMPLETED", 1) and cluster.log(job).endswith("got it\n")


def test_a_cable_is_cut_and_healed(cluster):
    cluster.on("n3", "sh", "-c", REACH)
    cluster.cut("n3")
    with pytest.raises(RuntimeError, match="exit 124"):  # silence, not a refusal
        cluster.on("n3", "sh", "-c", REACH)
    cluster.on("n2", "sh", "-c", REACH)
    cluster.heal("n3")
    cluster.until(lambda: cluster.run("srun", "-w", "n3", "hostname") == "n3\n", 30, "n3 to answer")


def test_a_node_hangs_and_recovers(cluster):
    def state() -> str:
        return cluster.on("n2", "ps", "-C", "slurmd", "-o", "state=").strip()

    cluster.freeze("n2")
    cluster.until(lambda: state() == "T", 10, "slurmd to stand still")
    cluster.thaw("n2")
    assert state() != "T" and cluster.run("srun", "-w", "n2", "hostname") == "n2\n"


@pytest.mark.parametrize(
    ("seconds", "configuration", "why"),
    [
        (30, "NoSuchKey=1\n", "NoSuchKey"),
        (1, SLURM_CONF.replace("Name=main", "Name=other"), "waited 1 s for the cluster to come up.*--- head.out"),
    ],
)
def test_a_cluster_that_does_not_come_up_says_why(monkeypatch, seconds, configuration, why):
    monkeypatch.setattr("tests.slurm.configuration.SLURM_CONF", configuration)
    monkeypatch.setattr("tests.slurm.cluster.START_SECONDS", seconds)
    before, cluster = traces(), Cluster(nodes=1)
    with pytest.raises(RuntimeError, match=f"(?s)no Slurm cluster: .*{why}"), cluster:
        pytest.fail("it came up")
    assert left_since(before) == {}
