"""`collagan reproduce` from nothing to tables, through interruptions of every kind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from collagan_dist import files
from collagan_dist.config.load import load_config
from collagan_dist.config.tree import Config
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.errors import CheckpointError, ConfigError
from collagan_dist.reproduce import run_jobs, run_status
from collagan_dist.reproduce.plan import PlannedRun
from tests.reproduce.small import TABLE_3, content, ended, events, start, words, write_small


def until(process: subprocess.Popen, done: Callable[[], bool]) -> None:
    last = time.monotonic() + 120
    while not done():
        assert process.poll() is None and time.monotonic() < last, process.communicate()
        time.sleep(0.02)


def test_what_it_leaves(undisturbed: Path) -> None:
    table = json.loads((undisturbed / "table3.json").read_text())
    assert table["rows"] == ["M_d", "M_id"] and all(
        c["ours"] > 0 for row in table["cells"].values() for c in row.values()
    )
    for name in ("M_d", "M_id"):
        run = undisturbed / "runs" / name
        assert events(run) == ["start"] and (run / "checkpoints/step-00000003").is_dir()
        metrics = json.loads((run / "evaluation/test-block.json").read_text())
        cell = table["cells"][name]["average"]
        assert (
            cell["ours"] == metrics["landmark_error"]["mean"] and cell["se"] == metrics["se"]["landmark_error"]["mean"]
        )
    verdicts = {one["claim"]: one["verdict"] for one in content(undisturbed)["claims.json"]["claims"]}
    assert verdicts["Completion helps landmarks: M_id beats M_d"] in ("holds", "does not", "undecided")
    assert (undisturbed / "report.html").stat().st_size > 5000 and not list(undisturbed.glob(".*.partial"))


def test_killed_in_the_middle_and_continued(undisturbed: Path, shards: Manifest, tmp_path: Path) -> None:
    """kill -9 while the second model learns: its training saves and ends by itself, the first is not learned again."""
    command = words(write_small(tmp_path), Path(str(shards.folder)), tmp_path / "out", *TABLE_3)
    process = start(*command)
    first, second = (tmp_path / "out/runs" / name for name in ("M_id", "M_d"))
    until(process, lambda: (second / "lease").exists())
    children = subprocess.run(["pgrep", "--parent", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(children) == 1
    last = time.monotonic() + 60
    while Path(f"/proc/{children[0]}").exists():
        assert time.monotonic() < last
        time.sleep(0.05)
    learned = (first / "metrics.jsonl").read_bytes()
    ended(start(*command))
    assert (first / "metrics.jsonl").read_bytes() == learned and events(first) == ["start"]
    assert content(tmp_path / "out") == content(undisturbed)


def test_asked_to_stop_and_continued(undisturbed: Path, shards: Manifest, tmp_path: Path) -> None:
    """TERM: the training saves, exit 75; the same command continues, and once all is done does nothing again."""
    command = words(write_small(tmp_path), Path(str(shards.folder)), tmp_path / "out", *TABLE_3)
    process = start(*command)
    until(process, lambda: (tmp_path / "out/runs/M_id/lease").exists())
    process.send_signal(signal.SIGTERM)
    _, err = ended(process, 75)
    assert "the same command continues" in err and "Traceback" not in err
    assert not (tmp_path / "out/table3.json").exists()
    ended(start(*command))
    assert content(tmp_path / "out") == content(undisturbed)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out/runs").rglob("*") if p.is_file()}
    _, err = ended(start(*command))
    assert err.count("done already") == 2
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "out/runs").rglob("*") if p.is_file()}


def test_another_configuration_is_refused(undisturbed: Path, shards: Manifest, tmp_path: Path) -> None:
    before = content(undisturbed)
    data = Path(str(shards.folder))
    command = words(write_small(tmp_path), data, undisturbed, *TABLE_3, "--set", "optim.generator.lr=1e-3")
    _, err = ended(start(*command), 5)
    assert "optim.generator.lr: 0.0002 -> 0.001" in err and "another --out" in err
    shorter = [
        word if word != "0.01" else "0.004" for word in words(write_small(tmp_path), data, undisturbed, *TABLE_3)
    ]
    _, err = ended(start(*shorter), 5)
    assert "schedule.steps: 3 -> 1" in err and "another --out" in err
    assert content(undisturbed) == before


def test_a_rehearsal_is_not_continued_in_full(undisturbed: Path, tmp_path: Path) -> None:
    """A longer run learns otherwise from its first step: a part of a rehearsal is no part of it."""
    config = load_config(str(undisturbed / "runs/M_d/config.yaml"))
    manifest = json.loads((undisturbed / "runs/M_d/data.json").read_text())["manifest"]
    run_status.check(PlannedRun("M_d", "M_d", config, undisturbed, 3), manifest)
    for change in ({"steps": 300}, {"adv_from": 100}):
        other = config.model_copy(update={"schedule": config.schedule.model_copy(update=change)})
        run = PlannedRun("M_d", "M_d", other, undisturbed, other.schedule.steps or 0)
        with pytest.raises(CheckpointError, match=rf"schedule.{next(iter(change))}: \d+ -> \d00(.|\n)*another --out"):
            run_status.check(run, manifest)


def test_a_failed_run_is_named_and_the_others_go_on(shards: Manifest, tmp_path: Path) -> None:
    """A file stands where M_id's run folder would be."""
    config = write_small(tmp_path)
    out = tmp_path / "out"
    (out / "runs").mkdir(parents=True)
    (out / "runs/M_id").write_text("in the way")
    _, err = ended(start(*words(config, Path(str(shards.folder)), out, *TABLE_3)), 2)
    assert "M_id failed:" in err and "cannot be used as run folder" in err and "12 numbers" not in err
    assert "6 numbers of the tables are missing" in err
    table = json.loads((out / "table3.json").read_text())
    assert table["cells"]["M_id"]["nose"]["ours"] is None and table["cells"]["M_d"]["nose"]["ours"] > 0
    assert "1.85 / – / –" in (out / "table3.md").read_text() and (out / "report.html").exists()


def test_a_damaged_last_checkpoint_is_trained_again(undisturbed: Path, shards: Manifest, tmp_path: Path) -> None:
    """Its bytes are looked at when it is scored: the step is learned again from the checkpoint before, to the same network."""
    shutil.copytree(undisturbed / "runs/M_d", tmp_path / "runs/M_d")
    shutil.copytree(undisturbed / "configs", tmp_path / "configs")
    folder = tmp_path / "runs/M_d"
    weights = folder / "checkpoints/step-00000003/generator.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    scored = (folder / "evaluation/test-block.json").read_bytes()
    (folder / "evaluation/test-block.json").unlink()
    run = PlannedRun("M_d", "M_d", load_config(str(folder / "config.yaml")), tmp_path, 3, {"block": False})
    said: list[str] = []
    outcome = run_jobs.do_run(run_jobs.Job(run, str(shards.folder), shards.hash, 1), False, said.append)
    assert outcome == run_jobs.Outcome("M_d") and any("its last checkpoint is damaged" in line for line in said)
    assert (folder / "evaluation/test-block.json").read_bytes() == scored and weights.read_bytes() == whole


def test_a_failure_is_told_by_what_was_written_this_time(tmp_path: Path) -> None:
    """An older message in the log, which is appended to, is not this failure's."""
    run = PlannedRun("M_d", "M_d", Config(), tmp_path, 3)
    run.log.parent.mkdir()
    run.log.write_text("collagan train: the disk is full\n")
    code = "import sys; print('no such device'); sys.exit(1)"
    ended = run_jobs._call(run_jobs.Job(run, "", "", 1), [sys.executable, "-c", code], False, lambda line: None)
    failed = ended.failure(run)
    assert failed.reason == f"exit code 1; no such device (log: {run.log})" and failed.code == 4
    assert run.log.read_text().startswith("collagan train: the disk is full\n")


def test_exit_codes_are_the_contracts() -> None:
    """A rank's own where a launcher tells it (torchrun ends with 1); else that of the cluster."""
    torchrun = "Root Cause (first observed failure):\n  rank      : 1 (local_rank: 1)\n  exitcode  : {} (pid: 77)\n"
    cases = [("", 3, 3), (torchrun.format(6), 1, 6), (torchrun.format(-9), 1, 4), ("", -9, 4), ("", 1, 4), ("", 75, 4)]
    assert [run_jobs.contract_code(text, code) for text, code, _ in cases] == [expected for *_, expected in cases]


def test_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is busy as long as a reproduction, or a child that it left behind, is at work there."""
    monkeypatch.setattr(files, "_AT_WORK", 0.2)
    with files.command_lock(tmp_path / "out", "collagan reproduce") as held:
        child = run_jobs.start(["sleep", "100"], subprocess.DEVNULL, held)
        with (
            pytest.raises(ConfigError, match="is at work there"),
            files.command_lock(tmp_path / "out", "collagan reproduce"),
        ):
            pass
    with (
        pytest.raises(ConfigError, match="is at work there"),
        files.command_lock(tmp_path / "out", "collagan reproduce"),
    ):
        pass
    child.kill()
    child.wait()
    with files.command_lock(tmp_path / "out", "collagan reproduce"):
        pass


def test_a_child_ends_with_its_parent() -> None:
    """However the parent dies: its training is asked to save and end."""
    code = "from collagan_dist.reproduce.run_jobs import start; import os, time; print(start(['sleep', '100'], 2).pid, flush=True); time.sleep(100)"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = Path("/proc") / parent.stdout.readline().strip() / "cmdline"
    assert child.read_bytes().startswith(b"sleep")
    parent.kill()
    parent.communicate()
    last = time.monotonic() + 10
    while child.exists() and child.read_bytes():  # what nobody waits for keeps an entry without a command
        assert time.monotonic() < last
        time.sleep(0.05)
