import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import collagan_dist
from collagan_dist.errors import ConfigError
from collagan_dist.reproduce.plan import ReproduceOptions
from collagan_dist.reproduce.slurm import submit
from tests.conftest import ROOT
from tests.reproduce.small import events, words, write_small
from tests.slurm.cluster import Cluster

OPTIONS = "--gpus-per-node=0 --cpus-per-task=1 --time=5"
# Jobs run this checkout's package, whatever is installed beside the command.
ENV = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@contextmanager
def drained(cluster: Cluster) -> Iterator[None]:
    for node in cluster.names:
        cluster.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    try:
        yield
    finally:
        for node in cluster.names:
            cluster.run("scontrol", "update", f"nodename={node}", "state=resume")


@pytest.mark.slurm
def test_a_job_trains_and_the_last_one_draws(cluster, shards, tmp_path):
    """First all runs of Figure 5 are submitted, then those of Figure 3 alone, whose one run waits already."""
    out = tmp_path / "out"
    arguments = words(write_small(tmp_path), shards.folder, out, "--tables", "", "--slurm", OPTIONS)

    def reproduce(figure: int) -> tuple[str, dict[str, str]]:
        command = [sys.executable, "-m", "collagan_dist", *arguments, "--figures", figure]
        return cluster.run(*command, cwd=tmp_path, env=ENV), json.loads((out / "slurm.json").read_text())

    with drained(cluster):  # nothing starts before all is submitted
        said, jobs = reproduce(5)
        assert set(jobs) == {"M*_isd", "M*_isd-noise", "CE", "CE-noise", "SII", "parser", "GFC", "reproduce"}
        waits = {name: cluster.run("squeue", "-h", "-j", job, "-o", "%E") for name, job in jobs.items()}
        assert f"parser: job {jobs['parser']}\n" in said and f"afterok:{jobs['parser']}" in waits.pop("GFC")
        assert all(f"afterany:{job}" in waits["reproduce"] for name, job in jobs.items() if name != "reproduce")
        assert [name for name, wait in waits.items() if "after" in wait] == ["reproduce"]
        said, again = reproduce(3)
        assert f"M*_isd: job {jobs['M*_isd']} is in the queue already" in said
        for name, job in jobs.items():
            if again[name] != jobs["M*_isd"] and name != "reproduce":
                cluster.cancel(job)
    last = cluster.wait(again["reproduce"], 300)
    log = cluster.log(again["reproduce"])
    assert (last.state, last.exit_code) == ("COMPLETED", 0) and "M*_isd: done already" in log, log
    assert cluster.job(jobs["M*_isd"]).state == "COMPLETED" and events(out / "runs/M*_isd") == ["start"]
    world = json.loads((out / "runs/M*_isd/world.json").read_text())
    assert world["ranks"][0]["launcher"] == "srun"
    assert (out / "figure3.png").exists() and (out / "report.html").exists()


def test_a_package_without_a_checkout(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(collagan_dist, "__file__", str(tmp_path / "collagan_dist/__init__.py"))
    with pytest.raises(ConfigError, match="this installation lacks the folder"):
        next(submit(ReproduceOptions("stable", str(shards.folder), tmp_path / "out"), OPTIONS))
    assert not (tmp_path / "out").exists()
