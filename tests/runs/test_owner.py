"""The process identity in a lease: written and read back, alive, a zombie, or gone."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

from collagan_dist.runs.owner import Owner, parse_owner, process_start_time, this_process


def test_the_file_has_one_word_and_value_a_line() -> None:
    owner = this_process(3, "cafe", "slurm:12, start 0", 5.0)
    first, *rest = owner.text().splitlines()
    assert first == "3 cafe"
    assert [line.split()[0] for line in rest] == ["host", "pid", "born", "machine", "job", "since", "beat", "state"]
    assert parse_owner(owner.text()) == owner and owner.is_this_process() and not owner.ended


def test_words_of_another_version_are_ignored() -> None:
    owner = this_process(3, "cafe", "", 5.0)
    assert parse_owner(owner.text() + "color blue\n") == owner


def test_what_cannot_be_read_has_ended() -> None:
    assert parse_owner("") == parse_owner("nonsense\n") == Owner(0)
    damaged = parse_owner("7 cafe\npid twelve\nstate running\n")
    assert damaged.generation == 7 and damaged.ended


def test_a_process_is_known_by_its_start_time() -> None:
    """The same pid with another start time is another process; a zombie is as good as gone."""
    child = subprocess.Popen(["sleep", "60"])
    owner = replace(this_process(1, "", "", 5.0), pid=child.pid, process_start=process_start_time(child.pid))
    assert owner.is_alive() and owner.is_on_this_machine() and not owner.is_this_process()
    assert not replace(owner, process_start="1").is_alive()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not owner.is_alive()
    child.wait()
    assert process_start_time(child.pid) == "" and not owner.is_alive()
