"""The test cluster itself: it leaves nothing behind."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.slurm.cluster import RAY, Cluster, shared_with_other_clusters
from tests.slurm.configuration import FREEZER

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
