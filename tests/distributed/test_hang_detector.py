import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as dist

from collagan_dist.distributed.hang_detector import HangDetector
from collagan_dist.distributed.rank_status import RankStatus
from collagan_dist.types import World
from tests.conftest import ROOT


@pytest.fixture
def detectors() -> Iterator[list[HangDetector]]:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with ThreadPoolExecutor(2) as pool:
        both = [*pool.map(lambda rank: HangDetector(World(rank, 2), store, RankStatus(), 60.0, 60.0), range(2))]
    yield both
    for detector in both:
        detector.stop()


def test_names_are_known_from_the_start_and_reasons_are_told(detectors):
    """The names are exchanged before anything can hang; the reason of an error reaches the other rank."""
    assert all(set(detector._heartbeats) == {0, 1} for detector in detectors)
    assert detectors[1].explain() == "see its message"
    detectors[0].stop("rank 0 on here ended: ValueError: no")
    assert detectors[1].explain() == "rank 0 on here ended: ValueError: no"
    detectors[1].stop("rank 1 on here ended: a consequence")
    assert detectors[0].explain() == "rank 0 on here ended: ValueError: no"  # the first reason is kept


def test_time_in_which_the_process_was_stopped_does_not_count(detectors):
    detector = detectors[0]
    for one in detectors:
        one.stop()
    with detector.status.waiting_in("the gradient"):
        detector.status.waiting = ("the gradient", time.monotonic() - 50)
        detector._awake_since = 0.0
        assert detector._waited_seconds() >= 50
        detector._last_poll -= 40  # no poll for more than half of the timeout
        assert detector._waited_seconds() < 1


HANG = """
import sys, time
from pathlib import Path
import torch.distributed as dist
from concurrent.futures import ThreadPoolExecutor
from collagan_dist.distributed.hang_detector import HangDetector
from collagan_dist.distributed.rank_status import RankStatus
from collagan_dist.types import World
store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
statuses = [RankStatus(3, Path(sys.argv[1])) for _ in range(2)]
with ThreadPoolExecutor(2) as pool:
    detectors = [*pool.map(lambda rank: HangDetector(World(rank, 2), store, statuses[rank], 2.0, 2.0), range(2))]
def stuck_here():
    with statuses[0].waiting_in("the gradient"):
        time.sleep(60)
stuck_here()
"""


def test_a_rank_that_does_not_come_is_named_and_the_process_ends(tmp_path):
    """Rank 0 waits, rank 1 does not come: exit code 4, its name, and where it is."""
    command = [sys.executable, "-c", HANG, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 4, done.stderr
    state = "it is busy or stuck in its own work"
    assert f"has not come to the gradient of step 3 in 2 s (runtime.timeout is 2); {state}" in done.stderr
    assert done.stderr.count("all ranks end; Python stacks of those that answer:") == 1
    assert "waits in the gradient" in (tmp_path / "stacks-rank-0.txt").read_text()
    assert "rank 1 is at:\n" in done.stderr and "in stuck_here" in done.stderr
    assert "in its own work" in (tmp_path / "stacks-rank-1.txt").read_text()
