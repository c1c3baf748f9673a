import shutil
import sys

import fsspec
import pytest

from collagan_dist import places
from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.data.shards.shard_reader import SplitReader
from collagan_dist.errors import DataError
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.conftest import collagan
from tests.data.remote_shards import content, names, remote_manifest
from tests.data.server import flipped
from tests.data.stores import S3, Hub
from tests.faults.test_bad_input import run
from tests.training.small import equal, small, weights


@pytest.mark.parametrize("fault", ["short", "drop", "flip", "longer", "503"])
@pytest.mark.parametrize("name", ["train-000000.tar", "train-000000.idx"])
def test_a_transfer_that_fails_is_made_again(shards, store, cache, name, fault):
    store.faults[name] = [fault, fault, ""]
    split = SplitReader(remote_manifest(store.url, cache), "train")
    assert content(split.read(0)) == content(SplitReader(shards, "train").read(0))
    assert store.requests[name] == 3


@pytest.mark.parametrize(
    ("fault", "tries", "said"),
    [
        ("short", 3, "expected exactly|onsistency check failed"),
        ("flip", 3, "with sha256|checksum"),
        ("longer", 3, "found more than|onsistency check failed"),
        ("503", 3, "answers 503|SlowDown"),
        ("403", 1, "access is denied"),
    ],
)
def test_what_cannot_be_had_complete_is_an_error(shards, store, cache, fault, tries, said):
    """Also when it is prefetched; nothing of it stays in the cache."""
    store.faults["train-000001.tar"], store.forever = [fault], True
    split = SplitReader(remote_manifest(store.url, cache), "train")
    for ask, number in ((split.prefetch, 1), (split.read, 20)):
        with pytest.raises(DataError, match=f"{store.url}/train-000001.tar.*({said})"):
            ask(number)
    assert names(cache) == {f"{shards.shards('train')[1].idx_sha256}.idx"}
    if isinstance(store, Hub):  # whose driver tries several times itself
        assert 2 * tries <= store.requests["train-000001.tar"] <= 2 * tries * 6
    else:
        assert store.requests["train-000001.tar"] == 2 * tries


def test_a_store_that_says_nothing_is_given_up(store, cache, monkeypatch):
    monkeypatch.setattr(places, "_READ_SECONDS", 0.2)
    if isinstance(store, Hub):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    store.faults["manifest.json"], store.forever = ["slow"], True
    with pytest.raises(DataError, match=f"{store.url}/manifest.json: .*3 times") as error:
        remote_manifest(store.url, cache)
    assert len(str(error.value).splitlines()) == 1


def test_an_object_that_was_replaced_is_never_used(shards, store, cache, tmp_path):
    """The manifest's hash decides, whatever size and name say."""
    split = SplitReader(remote_manifest(store.url, cache), "train")
    tar = (shards.folder / "train-000002.tar").read_bytes()
    if isinstance(store, S3):
        store.write("data/train-000001.tar", flipped(tar))
    else:
        store.folder = shutil.copytree(store.folder, tmp_path / "copy")
        (store.folder / "train-000001.tar").write_bytes(flipped(tar))
    with pytest.raises(DataError, match=r"train-000001.tar"):
        split.read(20)
    assert content(split.read(0)) == content(SplitReader(shards, "train").read(0))


def test_a_place_that_is_not_there_is_said(store, cache):
    """A data set, a bucket or a repository that does not exist."""
    for url in {f"{store.url}x", store.url.replace("bucket-", "bucket-x").replace("faces", "faces-x")} - {store.url}:
        with pytest.raises(DataError, match=f"{url}/manifest.json: there is no such (file|bucket or repository)"):
            remote_manifest(url, cache)


def test_training_and_verify_read_a_store_as_they_read_a_folder(shards, store, cache, tmp_path, capsys):
    runs = [tmp_path / "local", tmp_path / "remote"]
    for run_folder, data in zip(runs, (shards.folder, store.url), strict=True):
        config = small(data, schedule__steps=2, data__cache={"folder": str(cache)})
        train(config, run_folder, World())
    assert equal(weights(runs[0], 2), weights(runs[1], 2))
    assert run(capsys, "verify", store.url)[0] == 0


def test_the_environment_names_the_server(store):
    """HF_ENDPOINT and AWS_ENDPOINT_URL, as a process reads them that starts with them."""
    collagan("verify", store.url)
    assert store.requests["manifest.json"] == 1


def test_access_that_is_missing_says_how_to_mend_it(shards, s3, cache, monkeypatch):
    s3.upload(shards.folder)
    s3.faults["manifest.json"], s3.forever = ["403"], True
    with pytest.raises(DataError, match=r"access is denied .*; set AWS_PROFILE, or AWS_ACCESS_KEY_ID"):
        remote_manifest(s3.url, cache)
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(DataError, match=r"there are no credentials for it .*; set AWS_PROFILE"):
        remote_manifest(s3.url, cache)
    assert s3.requests["manifest.json"] == 1


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("pipe:touch canary", 2, "read from a folder or from file:///, http://"),
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


@pytest.mark.parametrize(("scheme", "extra"), [("s3", "s3"), ("gs", "gs"), ("abfs", "az"), ("hf", "hf")])
def test_a_missing_driver_says_what_to_install(scheme, extra, monkeypatch, capsys):
    for package in ("s3fs", "gcsfs", "adlfs", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules[fsspec.get_filesystem_class.__module__]._registry, scheme, raising=False)
    code, text = run(capsys, "verify", f"{scheme}://bucket/folder")
    assert code == 2 and f"pip install 'collagan_dist[{extra}]'" in text


def test_a_file_url_is_a_folder(shards):
    assert read_manifest(f"file://{shards.folder}") == shards
