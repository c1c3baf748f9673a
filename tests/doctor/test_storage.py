"""Checks of the working folder and of a data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.doctor import storage


def test_a_folder_that_is_slow_or_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = storage.check_writing(Path("/proc"))
    assert found.state == "failed" and "/proc cannot be written" in found.text
    monkeypatch.setattr(storage, "_SLOW_WRITE_SECONDS", 0.0)
    (found,) = storage.check_writing(tmp_path)
    assert (found.state, found.mend) == ("warning", "checkpoints need faster storage")
    monkeypatch.setattr(storage, "_SLOW_WRITE_SECONDS", 1e9)
    monkeypatch.setattr(storage, "_MIN_FREE_BYTES", 1 << 60)
    (found,) = storage.check_writing(tmp_path)
    assert (found.state, found.mend) == ("warning", "make room") and not list(tmp_path.iterdir())


def test_a_data_set_that_a_training_would_refuse(shards: Manifest, tmp_path: Path) -> None:
    (found,) = storage.check_shards(str(shards.folder))
    assert found.state == "ok" and "48 train, 6 valid, 6 test samples" in found.text
    (found,) = storage.check_shards(str(tmp_path / "none"))
    assert found.state == "failed" and str(tmp_path / "none") in found.text
