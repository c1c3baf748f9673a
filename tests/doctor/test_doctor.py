"""collagan doctor: what is sound is ok on every rank, and what is broken is named."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.distributed import versions
from collagan_dist.doctor import machine
from collagan_dist.doctor import report as doctor_report
from collagan_dist.doctor.finding import Finding, ok, run_check, warning
from collagan_dist.doctor.report import run_checks
from collagan_dist.types import World
from tests.conftest import collagan
from tests.faults.starts import as_rank, free_port
from tests.slurm.cluster import Cluster

LOCAL = ["names", "libraries", "devices", "limits", "decoding", "/dev/shm", "locks", "storage"]
TOGETHER = ["meeting", "all-reduce (cpu)", "latency", "clocks"]


@pytest.fixture(autouse=True)
def no_extensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))


def checks(text: str) -> dict[str, dict[str, Any]]:
    report = json.loads(text)
    assert report["sound"] == all(check["state"] != "failed" for check in report["checks"])
    found = {check["check"]: check for check in report["checks"]}
    assert len(found) == len(report["checks"])
    return found


def test_alone(shards: Manifest, tmp_path: Path) -> None:
    """One line a check; nothing is left behind."""
    done = collagan("doctor", "--data", shards.folder, cwd=tmp_path)
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert [name.split("  ")[0] for _, name in lines] == [*LOCAL, "data", "slurm", "ray"]
    assert {state for state, _ in lines} <= {"ok", "warning"} and list(tmp_path.iterdir()) == []
    assert "48 train, 6 valid, 6 test samples" in done.stdout and "DALI decodes a JPEG on cpu" in done.stdout


def test_two_ranks(tmp_path: Path) -> None:
    """Rank 0 speaks for both; `--net` looks at nothing else."""
    found = checks(collagan("doctor", "--json", cwd=tmp_path, ranks=2).stdout)
    assert [*found] == [*LOCAL, "slurm", "ray", *TOGETHER, "shared folder"]
    assert found["meeting"]["text"].startswith("2 ranks on 1 host") and found["all-reduce (cpu)"]["text"].startswith(
        "right; "
    )
    assert "seen by all 2 ranks" in found["shared folder"]["text"] and list(tmp_path.iterdir()) == []
    assert [*checks(collagan("doctor", "--json", "--net", cwd=tmp_path, ranks=2).stdout)] == ["names", *TOGETHER]


@pytest.mark.slurm
def test_over_the_nodes_of_an_allocation(cluster: Cluster, tmp_path: Path) -> None:
    """From salloc's shell, whose steps are named as it is, and without any variable that says where to meet."""
    command = [sys.executable, "-m", "collagan_dist", "doctor", "--json"]
    said = cluster.run("salloc", "--quiet", "-N2", "srun", "--ntasks-per-node=1", *command, cwd=tmp_path, timeout=200)
    found = checks(said)
    assert found["meeting"]["text"] == "2 ranks on 2 hosts" and "between n1 and n2" in found["latency"]["text"]
    assert "n1: slurm" in found["slurm"]["text"] or "n[1-2]" in found["slurm"]["text"]
    assert "n1 (10.77.0.1)" in found["names"]["text"] and found["shared folder"]["state"] == "ok"


def test_broken_things_are_found(shards: Manifest, tmp_path: Path) -> None:
    """A folder that cannot be written, a lock without a compiler, a shard that is too short: all named at once, exit 4."""
    data = Path(shutil.copytree(shards.folder, tmp_path / "packed"))
    tar = next(data.glob("train-*1.tar"))
    os.truncate(tar, 10_000)
    lock = tmp_path / "extensions/py311_cpu/deepspeed_shm_comm/lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    os.utime(lock, (time.time() - 100,) * 2)
    done = collagan("doctor", "--json", "--data", data, cwd=Path("/proc"), check=False)
    found = checks(done.stdout)
    assert done.returncode == 4 and "Traceback" not in done.stderr
    assert {name for name, check in found.items() if check["state"] == "failed"} == {"storage", "data"}
    assert "/proc cannot be written" in found["storage"]["text"] and found["storage"]["mend"]
    assert str(tar) in found["data"]["text"] and "collagan pack" in found["data"]["mend"]
    assert found["locks"]["state"] == "warning" and str(lock) in found["locks"]["text"]


def test_ranks_that_do_not_meet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Which is what doctor is called for: the machine is looked at all the same."""
    monkeypatch.setattr(doctor_report, "_RENDEZVOUS_SECONDS", 1)
    monkeypatch.chdir(tmp_path)
    for name, value in as_rank(1, 2, free_port()).items():
        monkeypatch.setenv(name, value)
    report = run_checks(World(1, 2, 1, 2, 0, "srun"), net=True)
    assert (
        not report.complete
        and not report.passed
        and [finding.check for finding in report.findings] == ["names", "meeting"]
    )
    assert "refuses port" in report.failures[0].text and socket.gethostname() in report.failures[0].text


def test_known_bad_and_missing_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"torch": "2.9.1+cpu", "dali": "2.4.0", "numpy": "2.4.6", "deepspeed": None, "ray": None}
    monkeypatch.setattr(versions, "library_version", installed.get)
    (found,) = run_check("libraries", machine.check_libraries)
    assert found.state == "failed" and "torch below 2.10" in found.text and "ray not installed" in found.text
    installed["torch"] = "2.10.0"
    assert [finding.state for finding in run_check("libraries", machine.check_libraries)] == ["ok"]
    installed["dali"] = None
    assert [finding.state for finding in run_check("libraries", machine.check_libraries)] == ["failed"]


def test_a_check_that_breaks_is_a_finding() -> None:
    def broken() -> Any:
        yield ok("decoding", "so far")
        raise RuntimeError("no such device\nand more")

    assert [f.text for f in run_check("decoding", broken)] == ["so far", "RuntimeError: no such device"]


def test_one_line_a_check_over_ranks() -> None:
    """The heaviest state wins and names its hosts; libraries must be the same everywhere."""
    everybody = [
        ("n1", [ok("storage", "good"), ok("libraries", "torch 2"), ok("limits", "many")]),
        ("n2", [warning("storage", "slow", "faster disks"), ok("libraries", "torch 1"), ok("limits", "many")]),
        ("n2", [ok("libraries", "torch 1"), ok("limits", "many")]),
    ]
    storage, libraries, limits = doctor_report._merge(everybody)
    assert storage == Finding("storage", "warning", "n2: slow", "faster disks") and limits == ok("limits", "many")
    assert libraries.state == "failed" and libraries.text == "nodes differ: n1: torch 2 | n2: torch 1"
