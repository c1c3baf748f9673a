"""`collagan reproduce --slurm` on a real cluster: a job a run, then one that scores, draws and continues."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from collagan_dist.data.shards.manifest import Manifest
from tests.conftest import ROOT
from tests.reproduce.small import events, words, write_small
from tests.slurm.cluster import Cluster

OPTIONS = "--gpus-per-node=0 --cpus-per-task=1 --time=5"


ENV = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "OMP_NUM_THREADS": "1"}


@contextmanager
def drained(cluster: Cluster) -> Iterator[None]:
    """Inside, jobs wait."""
    for node in cluster.names:
        cluster.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    try:
        yield
    finally:
        for node in cluster.names:
            cluster.run("scontrol", "update", f"nodename={node}", "state=resume")


@pytest.mark.slurm
def test_gfc_waits_for_its_parser(cluster: Cluster, shards: Manifest, tmp_path: Path) -> None:
    """By afterok; and what else was submitted does not."""
    command = [
        sys.executable,
        "-m",
        "collagan_dist",
        *words(write_small(tmp_path), Path(str(shards.folder)), tmp_path / "out"),
    ]
    with drained(cluster):
        cluster.run(*command, "--tables", "", "--figures", "5", "--slurm", OPTIONS, cwd=tmp_path, env=ENV)
        jobs = json.loads((tmp_path / "out/slurm.json").read_text())
        waits = {name: cluster.run("squeue", "-h", "-j", job, "-o", "%E").strip() for name, job in jobs.items()}
        for job in reversed(jobs.values()):
            cluster.cancel(job)
    assert f"afterok:{jobs['parser']}" in waits["GFC"]
    assert set(jobs) == {"M*_isd", "M*_isd-noise", "CE", "CE-noise", "SII", "parser", "GFC", "reproduce"}
    assert not [name for name, wait in waits.items() if "after" in wait and name not in ("GFC", "reproduce")]


@pytest.mark.slurm
def test_jobs_train_what_is_missing_and_the_last_one_draws_the_figure(
    cluster: Cluster, shards: Manifest, tmp_path: Path
) -> None:
    """The job of M_i is cancelled: the last job trains it itself."""
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "collagan_dist",
        *words(write_small(tmp_path), Path(str(shards.folder)), out, "--tables", "", "--figures", "6"),
    ]
    with drained(cluster):  # nothing starts before all is submitted
        said = cluster.run(*command, "--slurm", OPTIONS, cwd=tmp_path, env=ENV)
        jobs = json.loads((out / "slurm.json").read_text())
        assert set(jobs) == {"M_i", "M_isd", "reproduce"} and f"M_i: job {jobs['M_i']}\n" in said
        waits_for = cluster.run("squeue", "-h", "-j", jobs["reproduce"], "-o", "%E")
        assert all(f"afterany:{jobs[name]}" in waits_for for name in ("M_i", "M_isd"))
        again = cluster.run(*command, "--slurm", OPTIONS, cwd=tmp_path, env=ENV)
        assert again.count("is in the queue already") == 2
        jobs = json.loads((out / "slurm.json").read_text())
        cluster.cancel(jobs["M_i"])
    last = cluster.wait(jobs["reproduce"], 300)
    log = cluster.log(jobs["reproduce"])
    assert (last.state, last.exit_code) == ("COMPLETED", 0), log
    assert "M_i: 3 of 3 steps to go" in log and "M_isd: done already" in log
    assert cluster.job(jobs["M_isd"]).state == "COMPLETED" and events(out / "runs/M_isd") == ["start"]
    world = json.loads((out / "runs/M_isd/world.json").read_text())
    assert world["ranks"][0]["launcher"] == "srun" and (out / "figure6.png").exists()
    assert (out / "report.html").exists()


def test_a_package_without_a_checkout(shards: Manifest, tmp_path: Path) -> None:
    """Installed alone it has no batch scripts: it says so before anything is written."""
    shutil.copytree(ROOT / "collagan_dist", tmp_path / "collagan_dist", ignore=shutil.ignore_patterns("__pycache__"))
    command = words(write_small(tmp_path), Path(str(shards.folder)), tmp_path / "out", "--slurm", OPTIONS)
    result = subprocess.run(
        [sys.executable, "-m", "collagan_dist", *command], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert result.returncode == 2 and "part of the project's checkout" in result.stderr
    assert not (tmp_path / "out").exists()
