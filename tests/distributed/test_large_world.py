import json
import subprocess
import sys

from tests.conftest import ROOT


def test_rank_1023_of_1024_trains(shards):
    """Its share of the order, two steps by DDP, and no memory that grows with the world."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.distributed.large_world", shards.folder],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(
        next(line for line in done.stdout.splitlines() if line.startswith("FOUND")).removeprefix("FOUND")
    )
    assert found["share"] == [True, True] and found["finite"] == [True, True] and found["moved"]
    assert found["ids"] == 4 and found["tensors"] == 4
    assert found["megabytes"] < 3000  # it was 1,500
