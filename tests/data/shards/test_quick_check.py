import pytest

from collagan_dist import places
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
