"""Fixtures of the tests of data/."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from collagan_dist import places
from collagan_dist.data.shards.manifest import Manifest
from tests.data.layouts import write_folder
from tests.data.server import Server, serving


@pytest.fixture
def server(shards: Manifest) -> Iterator[Server]:
    with serving(shards.folder) as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(places, "_RETRY_SECONDS", (0.01, 0.02))
    return tmp_path / "cache"


@pytest.fixture
def tree(copy_of_drawn: Path, tmp_path: Path) -> Path:
    write_folder(copy_of_drawn, tmp_path / "set", columns=("split",))
    return tmp_path / "set"
