import sys

import pytest

from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.data.shards.shard_reader import SplitReader
from collagan_dist.errors import DataError
from tests.data.remote_shards import content, names, remote_manifest
from tests.faults.test_bad_input import run


@pytest.mark.parametrize("fault", ["short", "drop", "flip", "longer", "503"])
@pytest.mark.parametrize("name", ["train-000000.tar", "train-000000.idx"])
def test_a_transfer_that_fails_is_made_again(shards, server, cache, name, fault):
    server.faults[name] = [fault, fault, ""]
    split = SplitReader(remote_manifest(server.url, cache), "train")
    assert content(split.read(0)) == content(SplitReader(shards, "train").read(0))
    assert server.requests[name] == 3


@pytest.mark.parametrize(
    ("fault", "tries", "said"),
    [
        ("short", 3, "expected exactly"),
        ("flip", 3, "with sha256"),
        ("longer", 3, "found more than"),
        ("503", 3, "answers 503"),
        ("403", 1, "answers 403"),
    ],
)
def test_what_cannot_be_had_complete_is_an_error(shards, server, cache, fault, tries, said):
    """Also when it is prefetched; nothing of it stays in the cache."""
    server.faults["train-000001.tar"], server.forever = [fault], True
    split = SplitReader(remote_manifest(server.url, cache), "train")
    for ask, number in ((split.prefetch, 1), (split.read, 20)):
        with pytest.raises(DataError, match=f"{server.url}/train-000001.tar.*{said}"):
            ask(number)
    assert names(cache) == {f"{shards.shards('train')[1].idx_sha256}.idx"}
    assert server.requests["train-000001.tar"] == 2 * tries


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("pipe:touch canary", 2, "read from a folder or from file://, http://"),
        ("pipe://touch canary", 2, "read from a folder"),
        ("memory://shards", 2, "read from a folder"),
        ("simplecache::http://x/y", 2, "read from a folder"),
        ("http:///", 2, "read from a folder"),
        ("http://somebody:secret@127.0.0.1/x", 2, "credentials belong in the environment"),
        ("http://127.0.0.1/x?token=secret", 2, "without password, ? or #"),
        ("http://127.0.0.1:1/x", 3, "http://127.0.0.1:1/x/manifest.json: cannot be fetched"),
    ],
)
def test_places_that_are_not_read(cache, tmp_path, monkeypatch, capsys, url, code, said):  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    for command in (["verify", url], ["train", "demo", "--data", url, "--run", "run"]):
        found, text = run(capsys, *command)
        assert found == code and said in text and "secret" not in text and len(text.splitlines()) == 1, text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("scheme", "extra"), [("s3", "s3"), ("gs", "gs"), ("abfs", "az")])
def test_a_missing_driver_says_what_to_install(scheme, extra, monkeypatch, capsys):
    for package in ("s3fs", "gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, package, None)
    code, text = run(capsys, "verify", f"{scheme}://bucket/folder")
    assert code == 2 and f"pip install 'collagan_dist[{extra}]'" in text


def test_a_file_url_is_a_folder(shards):
    assert read_manifest(f"file://{shards.folder}") == shards
