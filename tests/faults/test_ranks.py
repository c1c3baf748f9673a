"""Shards and ranks that do not fit each other, by the rows of docs/faults.md."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from collagan_dist.config.load import to_yaml
from collagan_dist.data.shards.manifest import Manifest
from tests.conftest import ROOT, collagan
from tests.training.small import small


def test_rows_12_and_13_shards_that_ranks_cannot_share_evenly(shards: Manifest, tmp_path: Path) -> None:
    """3 shards, the last one short, on 4 ranks: the same number of steps everywhere, every sample of an epoch exactly once."""
    assert [shard.samples for shard in shards.shards("train")] == [20, 20, 8]
    config = tmp_path / "small.yaml"
    config.write_text(to_yaml(small(shards.folder, schedule__batch=20, data__window=2)))
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4", "-m", "tests.faults.ranks"]
    subprocess.run([sys.executable, *start, config, "12", tmp_path / "seen.json"], check=True, cwd=ROOT, timeout=300)
    ranks = json.loads((tmp_path / "seen.json").read_text())
    assert [len(seen) for seen in ranks] == [12 * 5] * 4
    for epoch in range(5):
        assert sorted(i for seen in ranks for e, i in seen if e == epoch) == list(range(48))


def test_row_13_fewer_samples_than_a_global_batch(shards: Manifest, tmp_path: Path) -> None:
    """Refused with the numbers, before ranks meet."""
    config = tmp_path / "small.yaml"
    config.write_text(to_yaml(small(shards.folder, schedule__batch=64)))
    result = collagan("train", config, "--run", tmp_path / "run", ranks=2, check=False)
    text = "the split has 48 samples, one global batch needs 64; set schedule.batch to at most 48"
    # torchrun ends the other rank when one has failed.
    assert result.returncode != 0 and 1 <= result.stderr.count(text) <= 2 and not (tmp_path / "run").exists()
