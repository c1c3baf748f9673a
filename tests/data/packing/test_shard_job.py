import multiprocessing
from collections.abc import Iterator

import pytest

from collagan_dist.data.packing import shard_job
from collagan_dist.data.packing.pack import merge, pack_part
from collagan_dist.data.readers.registry import READERS
from collagan_dist.errors import ClusterError, DataError
from tests.data.packed import recipe


def test_a_note_of_other_library_versions_is_not_believed(drawn, tmp_path, monkeypatch):
    mine = recipe(drawn, tmp_path / "out")
    pack_part(mine, 0, 1, workers=1)
    monkeypatch.setattr(shard_job, "library_versions", lambda: "another node's")
    with pytest.raises(DataError, match=r"5 of 5 shards are missing or were made by .* other library versions"):
        merge(mine)
    with pytest.raises(ClusterError, match="this packing uses another node's"):
        next(spread_here(list(shard_job.plan_jobs(mine, READERS["celeba"](mine)))))


def spread_here(work: list[shard_job.ShardJob]) -> Iterator[shard_job.ShardResult]:
    """Builds as a node with its own tools does."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        yield from pool.imap(shard_job.build_shard, work)
