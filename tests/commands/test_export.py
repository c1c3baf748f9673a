"""`collagan export`."""

from __future__ import annotations

from pathlib import Path

from tests.commands.conftest import Collagan


def test_exports_the_newest_checkpoint(collagan: Collagan, trained: Path, tmp_path: Path) -> None:
    result = collagan("export", trained, "--out", tmp_path / "model")
    assert result.code == 0 and "M*_isd of step 2: " in result.out and "generator.safetensors" in result.out
    assert sorted(path.name for path in (tmp_path / "model").iterdir())[:2] == ["config.yaml", "generator.safetensors"]
    assert collagan("export", tmp_path / "none", "--out", tmp_path / "other").code == 2
