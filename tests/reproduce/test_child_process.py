import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from collagan_dist import files
from collagan_dist.errors import ConfigError
from collagan_dist.reproduce import child_process
from collagan_dist.reproduce.child_process import EndedProcess, collagan_command, run_command

TORCHRUN = "Root Cause (first observed failure):\n  rank      : 1 (local_rank: 1)\n  exitcode  : {} (pid: 77)\n"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_an_older_message_in_the_log_is_no_reason(tmp_path):
    log, lines = tmp_path / "logs/run.log", []
    log.parent.mkdir()
    log.write_text("collagan train: the disk is full\n")
    ended = run_command(python("import sys; print('no such device'); sys.exit(1)"), log, False, lines.append)
    assert ended.reason == f"exit code 1; no such device (log: {log})" and ended.error_code == 4
    assert lines == ["no such device"] and log.read_text() == "collagan train: the disk is full\nno such device\n"


def test_a_command_is_stopped_and_waited_for(tmp_path):
    """It saves on TERM."""
    saves = "import signal, time; signal.signal(15, lambda *_: exit(print('saved'))); print('ready'); time.sleep(100)"
    lines = []

    class Stop:
        def __bool__(self) -> bool:
            return "ready" in lines

    ended = run_command(python(saves), tmp_path / "run.log", Stop(), lines.append)
    assert ended.output == "ready\nsaved\n" and ended.code == 0


def test_the_exit_code_is_that_of_the_rank_that_failed():
    """Where torchrun, which ends with 1, names it; else that of the cluster."""
    for output, code, expected in (
        ("", 3, 3), (TORCHRUN.format(6), 1, 6), (TORCHRUN.format(-9), 1, 4), ("", -9, 4), ("", 1, 4), ("", 75, 4),
    ):  # fmt: skip
        assert EndedProcess(code, output, Path("log")).error_code == expected, output


def test_the_reason_is_the_commands_own_message():
    output = "step 7\ncollagan train: data: no such shard\nTraceback of torchrun\n"
    assert EndedProcess(3, output, Path("log")).reason == "data: no such shard"
    assert EndedProcess(-9, "", Path("log")).reason == "killed by signal 9; it wrote nothing (log: log)"


def test_the_lock_lasts_as_long_as_a_child(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_LOCK_WAIT_SECONDS", 0.2)
    with files.command_lock(tmp_path, "collagan reproduce") as lock:
        child = child_process.start(["sleep", "100"], subprocess.DEVNULL, lock)
    with pytest.raises(ConfigError, match="collagan reproduce"), files.command_lock(tmp_path, "collagan reproduce"):
        pass
    child.kill()
    child.wait()
    with files.command_lock(tmp_path, "collagan reproduce"):
        pass


def test_a_child_ends_with_its_parent():
    code = "from collagan_dist.reproduce.child_process import start; import time; print(start(['sleep', '100'], 2).pid, flush=True); time.sleep(100)"
    parent = subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True)
    child = Path("/proc") / parent.stdout.readline().strip() / "cmdline"
    assert child.read_bytes().startswith(b"sleep")
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while child.exists() and child.read_bytes():  # a zombie has no command line
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_several_ranks_meet_by_the_static_rendezvous():
    """The agent's store is at the port that it was given: by itself torchrun takes its c10d rendezvous, which unpickles."""
    command = collagan_command(2)
    port = command[command.index("--master-port") + 1]
    done = subprocess.run([*command, "doctor", "--net", "--json"], capture_output=True, text=True, timeout=120)
    said = json.loads(done.stdout)
    (ports,) = [check["text"] for check in said["checks"] if check["check"] == "ports"]
    assert said["ranks"] == 2 and re.search(rf"torchrun \(pid \d+\) at port {port}\b", ports), done
