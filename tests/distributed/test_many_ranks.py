"""Many ranks meet through the real store: processes, with threads in each where there are more ranks than a machine has room for."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT


def crowd(ranks: int, processes: int, *missing: int) -> dict[str, int]:
    """What the ranks said, with counts."""
    words = [sys.executable, "-m", "tests.distributed.crowd", *map(str, (ranks, processes, *missing))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND"))
    return json.loads(line.removeprefix("FOUND"))["said"]


def test_64_ranks_meet():
    assert crowd(64, 8) == {"met": 64}


@pytest.mark.full
def test_1024_ranks_meet():
    assert crowd(1024, 128) == {"met": 1024}


@pytest.mark.full
def test_one_of_1024_is_missing():
    """All that came say the same."""
    ((text, count),) = crowd(1024, 128, 777).items()
    assert count == 1023 and "1 of 1024 ranks did not come" in text and "missing rank 777;" in text
    assert "those that came: ranks 0-776, 778-1023" in text
