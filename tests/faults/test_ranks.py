"""Shards and ranks that do not fit each other, by the rows of docs/faults.md."""

import json

from collagan_dist.config.load import to_yaml
from tests.launch import torchrun
from tests.training.small import small


def test_rows_12_and_13_shards_that_ranks_cannot_share_evenly(shards, tmp_path):
    """3 shards, the last one short, on 4 ranks: the same number of steps everywhere, every sample of an epoch exactly once."""
    assert [shard.samples for shard in shards.shards("train")] == [20, 20, 8]
    config = tmp_path / "small.yaml"
    config.write_text(to_yaml(small(shards.folder, schedule__batch=20, data__window=2)))
    done = torchrun(4, "-m", "tests.faults.ranks", config, "12", tmp_path / "seen.json")
    assert done.returncode == 0, done.stderr
    ranks = json.loads((tmp_path / "seen.json").read_text())
    assert [len(seen) for seen in ranks] == [12 * 5] * 4
    for epoch in range(5):
        assert sorted(i for seen in ranks for e, i in seen if e == epoch) == list(range(48))
