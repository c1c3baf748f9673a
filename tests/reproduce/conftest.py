"""One undisturbed reproduction that the tests of interruptions, of Ray and of pictures compare with."""

from __future__ import annotations

from pathlib import Path

import pytest

from collagan_dist.data.shards.manifest import Manifest
from tests.reproduce.small import TABLE_3, ended, start, words, write_small


@pytest.fixture(scope="session")
def undisturbed(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reproduction of Table 3 with two models, in one go."""
    folder = tmp_path_factory.mktemp("undisturbed")
    out, _ = ended(start(*words(write_small(folder), Path(str(shards.folder)), folder / "out", *TABLE_3)))
    assert f"report: {folder / 'out/report.html'}" in out and "landmark error, pixels" in out
    return folder / "out"
