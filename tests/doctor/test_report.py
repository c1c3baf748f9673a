import json
import os
import re
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from collagan_dist.commands.main import main
from collagan_dist.doctor import report as doctor_report
from collagan_dist.doctor.finding import Finding, ok, warning
from collagan_dist.doctor.report import run_checks
from collagan_dist.types import World
from tests.distributed.two_ranks import two_ranks
from tests.faults.processes import as_rank, free_port

MACHINE = [
    "names",
    "libraries",
    "devices",
    "limits",
    "decoding",
    "/dev/shm",
    "locks",
    "home",
    "temporary",
    "storage",
]
BETWEEN_RANKS = ["meeting", "all-reduce (cpu)", "latency", "clocks"]


@pytest.fixture(autouse=True)
def no_extensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))


def doctor(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str]:
    """(exit code, stdout) of `collagan doctor` in this process."""
    with pytest.raises(SystemExit) as stop:
        main(["doctor", *map(str, args)])
    return int(stop.value.code or 0), capsys.readouterr().out


def checks(text: str) -> dict[str, dict[str, Any]]:
    report = json.loads(text)
    assert report["sound"] == all(check["state"] != "failed" for check in report["checks"])
    found = {check["check"]: check for check in report["checks"]}
    assert len(found) == len(report["checks"])
    return found


def test_alone(shards, tmp_path, monkeypatch, capsys):
    """One line per check; nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    code, printed = doctor(capsys, "--data", shards.folder)
    lines = [line.split(maxsplit=1) for line in printed.splitlines()]
    assert [name.split("  ")[0] for _, name in lines] == [*MACHINE, "data", "slurm", "ray", "ports"]
    assert {state for state, _ in lines} <= {"ok", "warning"} and list(tmp_path.iterdir()) == []
    assert code == 0 and "48 train, 6 valid, 6 test samples" in printed and "DALI decodes a JPEG on cpu" in printed


@pytest.mark.timeout(150)  # ranks that differ in their collectives hang
def test_two_ranks_check_the_network_between_them():
    """Rank 0 has the findings; a folder is looked at only without --net."""
    (net, all_checks), second = (rank["doctor"] for rank in two_ranks())
    assert second == [[], []] and {finding["state"] for finding in all_checks} <= {"ok", "warning"}
    assert [finding["check"] for finding in net] == BETWEEN_RANKS
    assert [finding["check"] for finding in all_checks] == [*BETWEEN_RANKS, "shared folder"]
    assert all_checks[0]["text"].startswith("2 ranks on 1 host") and all_checks[1]["text"].startswith("right; 4 kB in ")
    assert re.search(r" is [+-]0\.0\d+ s from ", net[3]["text"])  # both processes read one clock
    assert "seen by all 2 ranks" in all_checks[-1]["text"]


@pytest.mark.slurm
def test_over_the_nodes_of_a_slurm_allocation(cluster, tmp_path):
    """From salloc's shell, whose steps are named as it is, and without any variable that says where to meet."""
    command = [sys.executable, "-m", "collagan_dist", "doctor", "--json"]
    said = cluster.run("salloc", "--quiet", "-N2", "srun", "--ntasks-per-node=1", *command, cwd=tmp_path, timeout=200)
    found = checks(said)
    assert found["meeting"]["text"] == "2 ranks on 2 hosts" and "between n1 and n2" in found["latency"]["text"]
    assert "n1: slurm" in found["slurm"]["text"] or "n[1-2]" in found["slurm"]["text"]
    assert "n1 (10.77.0.1)" in found["names"]["text"] and found["shared folder"]["state"] == "ok"
    ports = found["ports"]  # the rendezvous of these ranks
    assert (
        ports["state"] == "ok"
        and "collagan doctor (pid " in ports["text"]
        and "on 10.77.0.1 (who reaches eth0)" in ports["text"]
    )


def test_broken_things_are_found(shards, tmp_path, monkeypatch, capsys):
    """A folder that cannot be written, a lock without a compiler, a shard that is too short: all named at once, exit 4."""
    data = Path(shutil.copytree(shards.folder, tmp_path / "packed"))
    os.truncate(data / "train-000001.tar", 10_000)
    (tmp_path / "extensions/any").mkdir(parents=True)
    (tmp_path / "extensions/any/lock").touch()
    monkeypatch.chdir("/proc")
    code, printed = doctor(capsys, "--json", "--data", data)
    found = checks(printed)
    assert code == 4
    assert [name for name, check in found.items() if check["state"] == "failed"] == ["storage", "data"]
    assert "/proc cannot be written" in found["storage"]["text"] and found["storage"]["mend"]
    assert f"{data}/train-000001.tar" in found["data"]["text"] and "collagan pack" in found["data"]["mend"]
    assert found["locks"]["state"] == "warning" and "extensions/any/lock" in found["locks"]["text"]


def test_a_rank_that_reaches_no_other(monkeypatch, tmp_path):
    """The report then says why, beside what this rank could check alone."""
    monkeypatch.setattr(doctor_report, "_RENDEZVOUS_SECONDS", 1)
    monkeypatch.chdir(tmp_path)
    for name, value in as_rank(1, 2, free_port()).items():
        monkeypatch.setenv(name, value)
    report = run_checks(World(1, 2, 1, 2, 0, "srun"), net=True)
    assert not report.complete and [finding.check for finding in report.findings] == ["names", "meeting"]
    (failure,) = report.failures
    assert "refuses port" in failure.text and socket.gethostname() in failure.text


def test_one_finding_per_check_over_all_ranks():
    """The worst state is shown with its hosts; libraries must be the same on all ranks."""
    ranks = [
        ("n1", [ok("storage", "good"), ok("libraries", "torch 2"), ok("limits", "many")]),
        ("n2", [warning("storage", "slow", "faster disks"), ok("libraries", "torch 1"), ok("limits", "many")]),
        ("n2", [ok("libraries", "torch 1"), ok("limits", "many")]),
    ]
    storage, libraries, limits = doctor_report._merge(ranks)
    assert storage == Finding("storage", "warning", "n2: slow", "faster disks") and limits == ok("limits", "many")
    assert libraries.state == "failed" and libraries.text == "nodes differ: n1: torch 2 | n2: torch 1"
