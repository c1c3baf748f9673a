import pytest

from collagan_dist import places
from collagan_dist.data.shards import quick_check as module
from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.data.shards.quick_check import quick_check
from collagan_dist.errors import DataError


def test_file_systems_that_list_are_checked_at_the_start(shards, monkeypatch):
    """One that fsspec brings along, in place of an object store."""
    import fsspec

    monkeypatch.setitem(places.SCHEMES, "memory", "")
    memory = fsspec.filesystem("memory")
    memory.put(str(shards.folder), "/listed", recursive=True)
    try:
        manifest = read_manifest("memory://listed")
        quick_check(manifest)
        memory.pipe_file("/listed/train-000001.tar", b"short")
        memory.rm_file("/listed/test-000000.idx")
        with pytest.raises(DataError) as error:
            quick_check(manifest)
        assert "memory://listed/train-000001.tar: has 5 bytes, the manifest says" in str(error.value)
        assert "memory://listed/test-000000.idx: is missing" in str(error.value)
    finally:
        memory.rm("/listed", recursive=True)


@pytest.mark.parametrize("most", [1, 2, 3, 100])
def test_a_start_looks_at_some_of_many_shards(shards, monkeypatch, most):
    """Evenly spread, the same ones on all ranks; without a bound at all of them."""
    looked: list[str] = []
    monkeypatch.setattr(module, "read_index", lambda folder, shard, repair: looked.append(shard.name))
    quick_check(shards, most=most)
    names = [shard.name for shard in shards]
    assert len(looked) <= most and looked == names[:: -(-len(names) // most)]
    looked.clear()
    quick_check(shards)
    assert looked == names and len(names) > 3
