import os
import shutil
from pathlib import Path

from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.data.shards.shard_reader import SplitReader
from collagan_dist.data.shards.verify import verify
from tests.data.remote_shards import names
from tests.data.server import serving
from tests.faults.test_bad_input import run


def test_verify_reads_the_source_and_not_the_cache(server, cache, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    SplitReader(read_manifest(server.url), "train").read(0)
    assert names(cache / "collagan_dist/shards")
    assert run(capsys, "verify", server.url)[0] == 0
    assert run(capsys, "verify", server.url, "--deep")[0] == 0
    server.faults, server.forever = {"train-000000.tar": ["flip"], "test-000000.idx": ["flip"]}, True
    code, text = run(capsys, "verify", server.url, "--deep")
    assert code == 3
    assert f"{server.url}/train-000000.tar: expected" in text and f"{server.url}/test-000000.idx: expected" in text


def test_verify_asks_a_server_for_sizes(shards, tmp_path, capsys):
    copy = Path(shutil.copytree(shards.folder, tmp_path / "copy"))
    os.truncate(copy / "train-000001.tar", 1000)
    (copy / "valid-000000.idx").unlink()
    with serving(copy) as server:
        code, text = run(capsys, "verify", server.url)
        assert code == 3 and f"{server.url}/train-000001.tar: has 1000 bytes, the manifest says" in text
        assert f"{server.url}/valid-000000.idx: is missing" in text


def test_webdatasets_own_switch_is_on_while_it_reads(shards, monkeypatch):
    import webdataset

    monkeypatch.setattr(webdataset.utils, "enforce_security", False)
    verify(shards.folder, deep=True)
    assert webdataset.utils.enforce_security
