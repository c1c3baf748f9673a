import json
import os
import shutil
import signal
import stat
import subprocess
import sys

from tests.audit.conftest import run, trained  # noqa: F401, fixtures
from tests.faults.processes import until
from tests.runs.run_folders import rewrite_state

ONE_RANK = ("--ranks", "1")


def test_a_read_only_run_elsewhere_with_its_data_elsewhere(collagan, run, shards, tmp_path, monkeypatch):  # noqa: F811
    moved = shutil.copytree(shards.folder, tmp_path / "moved")
    for path in (run, *run.rglob("*")):
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    monkeypatch.chdir(tmp_path)
    result = collagan("audit", "run", "--data", moved, *ONE_RANK, "--seed", "7", "--out", "audit.json")
    assert result.code == 0 and result.out.count("equal bit for bit") == 2
    assert result.out.startswith("Audit of run (--seed 7)\n")
    assert max(map(len, (line.rstrip() for line in result.out.splitlines()))) <= 80
    assert result.out.splitlines()[-1].strip() == "the audit found nothing that differs"
    found = json.loads((tmp_path / "audit.json").read_text())
    assert (found["verdict"], found["seed"], [one["verdict"] for one in found["findings"]]) == (
        "passed",
        7,
        ["equal"] * 2,
    )


def test_a_result_that_cannot_be_written_is_said_before_anything_is_computed(collagan, run, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr("collagan_dist.audit.audit.audit", None)
    (tmp_path / "file").touch()
    done = collagan("audit", run, "--out", tmp_path / "file/audit.json")
    assert done.code == 2 and "file: cannot be used as a folder" in done.err
    done = collagan("audit", run, "--out", tmp_path)
    assert done.code == 2 and "is a folder, which no file replaces; give --out the name of a file" in done.err


def test_what_differs_is_exit_5(collagan, run):  # noqa: F811
    rewrite_state(run / "checkpoints/step-00000003", lambda state: state.update(seed=9))
    result = collagan("audit", run, *ONE_RANK, "--evaluations", "0", "--stretches", "3", "--json")
    found = json.loads(result.out)
    assert result.code == 5 and found["verdict"] == "failed" and 0 <= found["seed"] < 1 << 31
    assert "state.json: seed: 9 -> 0" in str(found["findings"][0]["wrong"])


def test_what_cannot_be_audited_is_said(collagan, run, shards, tmp_path, monkeypatch):  # noqa: F811
    for arguments, code, message in (
        ((shards.folder,), 2, "is no run folder"),
        ((run, "--max-steps", "1", "--evaluations", "0"), 2, "nothing to audit; stretches: the shortest has 3 steps"),
        ((run, "--data", tmp_path / "none"), 3, "none"),
        ((run, "--ranks", "0"), 2, "not a whole number above 0"),
    ):
        result = collagan("audit", *arguments)
        assert result.code == code and message in result.err, result
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    result = collagan("audit", run)
    assert result.code == 2 and "it starts its ranks itself" in result.err


def test_an_audit_that_is_ended_leaves_nothing(run, tmp_path):  # noqa: F811
    """By `kill`, as by Ctrl-C."""
    words = [
        sys.executable,
        "-m",
        "collagan_dist",
        "audit",
        run,
        "--ranks",
        "2",
        "--evaluations",
        "0",
        "--max-steps",
        "9",
    ]
    place = tmp_path / "tmp"
    place.mkdir()
    child = subprocess.Popen(words, env={**os.environ, "TMPDIR": str(place)}, stderr=subprocess.PIPE, text=True)
    until(lambda: list(place.glob("collagan-audit-*/**/run/lease")), lambda: child.poll() is None)
    child.send_signal(signal.SIGTERM)
    assert "interrupted; the same command begins again" in child.communicate(timeout=60)[1] and child.returncode == 75
    assert not list(place.iterdir())
