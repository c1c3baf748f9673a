"""Fixtures of the tests of data/."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from collagan_dist import places
from collagan_dist.data.shards.manifest import Manifest
from tests.data.layouts import write_folder
from tests.data.server import Server, serving
from tests.data.stores import S3, hub_store


@pytest.fixture
def server(shards: Manifest) -> Iterator[Server]:
    with serving(shards.folder) as server:
        yield server


@pytest.fixture(params=["http", "s3", "hf"])
def store(request: pytest.FixtureRequest, shards: Manifest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The same shards behind each kind of URL, from a server that can be told to misbehave."""
    assert isinstance(shards.folder, Path)
    if request.param == "http":
        with serving(shards.folder) as server:
            yield server
    elif request.param == "s3":
        s3: S3 = request.getfixturevalue("s3")
        s3.upload(shards.folder)
        yield s3
    else:
        pytest.importorskip("huggingface_hub")
        with hub_store(shards.folder, monkeypatch) as server:
            yield server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(places, "_RETRY_SECONDS", (0.01, 0.02))
    return tmp_path / "cache"


@pytest.fixture
def tree(copy_of_drawn: Path, tmp_path: Path) -> Path:
    write_folder(copy_of_drawn, tmp_path / "set", columns=("split",))
    return tmp_path / "set"
