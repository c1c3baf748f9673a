import json
from dataclasses import replace
from hashlib import sha256

import pytest

from collagan_dist import structured
from collagan_dist.data.shards import manifest
from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.errors import DataError
from tests.faults.test_bad_input import run


def test_no_data_set_behind_a_url(server, capsys):
    code, text = run(capsys, "verify", f"{server.url}/deeper")
    assert code == 3 and f"{server.url}/deeper/manifest.json: there is no such file there" in text
    assert server.requests["manifest.json"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../train-000000.tar"}, {"name": "pipe:touch canary"}, {"name": "http://elsewhere/a.tar"},
        {"sha256": "../../x"}, {"idx_sha256": "0"}, {"bytes": -1}, {"samples": 1.5},
    ],
)  # fmt: skip
def test_a_manifest_names_no_other_places(shards, tmp_path, change):
    data = json.loads((shards.folder / "manifest.json").read_text())
    data["splits"]["train"]["shards"][0] |= change
    (tmp_path / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match="is not a manifest"):
        read_manifest(tmp_path)


def test_a_manifest_may_be_larger_than_other_files(shards, monkeypatch):
    monkeypatch.setattr(structured, "MAX_BYTES", 1000)
    assert read_manifest(shards.folder).splits == shards.splits
    monkeypatch.setattr(manifest, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match="more than 1000"):
        read_manifest(shards.folder)


@pytest.mark.full
def test_a_billion_samples(shards, tmp_path):
    many = many_shards(shards, 500_000)
    manifest.write_manifest(replace(many, folder=tmp_path))
    again = read_manifest(tmp_path)
    assert again.samples("train") == 1_024_000_000 and again.splits["train"][-1] == many.splits["train"][-1]


def many_shards(manifest: manifest.Manifest, count: int) -> manifest.Manifest:
    """The manifest of a data set with one split of so many shards of 2,048 samples; its files do not exist."""
    first = manifest.splits["train"][0]
    shards = tuple(
        replace(first, name=f"train-{n:06d}.tar", samples=2048, sha256=sha256(b"%d" % n).hexdigest())
        for n in range(count)
    )
    return replace(manifest, splits={"train": shards})
