"""`collagan reproduce --ray` on real Ray nodes trains and scores what one process does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from collagan_dist.data.shards.manifest import Manifest
from tests.reproduce.small import TABLE_3, content, ended, start, words, write_small
from tests.sweep.ray_nodes import QUIET, ray_nodes


def test_ray_gives_the_same_tables(
    undisturbed: Path, shards: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    config, data = write_small(tmp_path), Path(str(shards.folder))
    # M_id cannot start; M_d is trained and has to be evaluated.
    shutil.copytree(undisturbed / "runs/M_d", tmp_path / "bad/runs/M_d", ignore=shutil.ignore_patterns("evaluation"))
    (tmp_path / "bad/runs/M_id").write_text("in the way")
    with ray_nodes(2) as address:
        _, err = ended(start(*words(config, data, tmp_path / "ray", *TABLE_3, "--ray", address)))
        assert err.count(": done") == 2
        _, err = ended(start(*words(config, data, tmp_path / "bad", *TABLE_3, "--ray", address)), 2)
        assert "M_id: failed" in err and "M_d: done" in err and "collagan reproduce: M_id failed" in err
    assert content(tmp_path / "ray") == content(undisturbed)
