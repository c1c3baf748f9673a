"""`collagan reproduce --ray` on real Ray nodes trains and scores what one process does."""

from __future__ import annotations

from pathlib import Path

import pytest

from collagan_dist.data.shards.manifest import Manifest
from tests.reproduce.small import TABLE_3, content, ended, events, start, words, write_small
from tests.sweep.ray_nodes import QUIET, ray_nodes


def test_ray_gives_the_same_tables(
    undisturbed: Path, shards: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    config, data = write_small(tmp_path), Path(str(shards.folder))
    blocked = tmp_path / "bad/runs/M_id"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")
    with ray_nodes(2) as address:
        _, err = ended(start(*words(config, data, tmp_path / "ray", *TABLE_3, "--ray", address)))
        assert err.count(": done") == 2
        _, err = ended(start(*words(config, data, tmp_path / "bad", *TABLE_3, "--ray", address)), 2)
        assert "M_id failed" in err and events(tmp_path / "bad/runs/M_d") == ["start"]
    assert content(tmp_path / "ray") == content(undisturbed)
