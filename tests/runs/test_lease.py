import os
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collagan_dist.errors import ClusterError
from collagan_dist.runs import lease as leases
from collagan_dist.runs.lease import Lease, LeaseRequest, Owner, held_by_other_job, parse_owner, this_process


def take_lease(run: Path, job: str = "", seconds: float = 30) -> Lease:
    return LeaseRequest(run, job).poll(seconds)


def write_lease(run: Path, **changes: Any) -> Owner:
    """Write the lease of a process on another host, alive by its own word."""
    facts = {"host": "node7", "machine": "another", "heartbeat_seconds": 0.2, **changes}
    owner = replace(this_process(4, "cafe", "slurm:12, start 0", 1.0), **facts)
    (run / "lease").write_text(owner.text())
    return owner


def test_the_file_has_one_word_and_value_a_line():
    """Words of newer programs are ignored."""
    owner = this_process(3, "cafe", "slurm:12, start 0", 5.0)
    assert [line.split()[0] for line in owner.text().splitlines()] == [
        "3", "host", "pid", "born", "machine", "job", "since", "beat", "state",
    ]  # fmt: skip
    assert parse_owner(owner.text() + "color blue\n") == owner and owner.is_this_process() and not owner.ended
    assert parse_owner("") == parse_owner("nonsense\n") == Owner(0)
    for wrong in ("pid twelve", "pid -3", f"pid {1 << 40}", "beat nan", "beat 1e30"):
        assert parse_owner(f"7 cafe\n{wrong}\nstate running\n") == Owner(7, "cafe")
    assert parse_owner("\u00b2 cafe\n") == parse_owner("9" * 400) == Owner(0)  # a digit, and no number


def test_the_newest_start_owns_the_run(tmp_path):
    """A second start in this process: the first one stops before it writes, and its end does not disturb the second."""
    first = take_lease(tmp_path)
    second = take_lease(tmp_path)
    assert (tmp_path / "lease").read_text().split()[0] == "2" and second.owner.generation == 2
    with second.held():
        pass  # is not refused
    with pytest.raises(ClusterError, match=r"start 2 of this run has taken over from this one \(start 1\)"):
        first.check()
    with pytest.raises(ClusterError, match="has taken over"), first.held():
        pass
    first.release()
    assert not first.is_current() and second.is_current(recheck=True)
    second.release()
    assert parse_owner((tmp_path / "lease").read_text()).ended


def test_a_removed_lease_is_lost(tmp_path):
    lease = take_lease(tmp_path)
    (tmp_path / "lease").unlink()
    with pytest.raises(ClusterError, match="its file `lease` was removed"):
        lease.check()
    lease.release()
    assert not (tmp_path / "lease").exists()


def test_the_heartbeat_of_a_start_on_another_host_decides(tmp_path):
    """Not its clock; and a start of the same job need not wait for it."""
    alive = write_lease(tmp_path)
    ended = threading.Event()

    def heartbeats() -> None:
        while not ended.wait(0.05):
            os.utime(tmp_path / "lease", (time.time(), 0))  # any change counts: its clock may be decades off
            os.utime(tmp_path / "lease")

    thread = threading.Thread(target=heartbeats)
    thread.start()
    try:
        refused = rf"is being trained by pid {os.getpid()} on host node7 since {alive.since[:4]}"
        with pytest.raises(ClusterError, match=refused) as error:
            take_lease(tmp_path)
        assert f"remove {tmp_path / 'lease'} to take the run over" in str(error.value)
        with pytest.raises(ClusterError, match="is being trained by"):  # another step of the same start of the job
            take_lease(tmp_path, alive.job)
        take_lease(tmp_path, "slurm:12, start 1").release()
    finally:
        ended.set()
        thread.join()
    write_lease(tmp_path)
    assert LeaseRequest(tmp_path).poll(0.1) is None  # not before three heartbeats are missing
    lease = take_lease(tmp_path)
    assert lease.owner.generation == 5
    lease.release()


def test_an_ended_start_is_succeeded_at_once(tmp_path):
    write_lease(tmp_path, state="ended")
    LeaseRequest(tmp_path).poll(0).release()
    (tmp_path / "lease").unlink()
    later = LeaseRequest(tmp_path, known=9).poll(0)
    assert later.owner.generation == 10  # numbers grow though the file was removed
    later.release()


def test_a_start_on_this_machine_is_judged_by_its_process(tmp_path):
    """Alive, a zombie, or another process with the same pid."""
    child = subprocess.Popen(["sleep", "60"])
    facts = {"machine": leases.machine_id(), "pid": child.pid, "job": ""}
    facts["process_start"] = leases.process_start_time(child.pid)
    write_lease(tmp_path, **facts)
    with pytest.raises(ClusterError, match=f"is being trained by pid {child.pid}"):
        take_lease(tmp_path)
    write_lease(tmp_path, **{**facts, "process_start": "1"})
    take_lease(tmp_path).release()
    write_lease(tmp_path, **facts)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    take_lease(tmp_path).release()
    child.wait()


def test_who_holds_the_lease_for_another_job(tmp_path):
    assert not held_by_other_job(tmp_path, "")
    write_lease(tmp_path)
    assert held_by_other_job(tmp_path, "") and held_by_other_job(tmp_path, "slurm:13, start 0")
    assert not held_by_other_job(tmp_path, "slurm:12, start 1")
    write_lease(tmp_path, state="ended")
    assert not held_by_other_job(tmp_path, "")
