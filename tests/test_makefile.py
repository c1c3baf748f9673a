"""Makefile: what is there already is not made again."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The Makefile with what it makes first. Its programs, which compute for minutes, only note their command."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("demo/shards/manifest.json", "pyproject.toml", "constraints.txt", ".venv/ready"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    programs = tmp_path / ".venv/bin"
    programs.mkdir()
    for name in ("python", "torchrun", "collagan"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >> called\n')
        (programs / name).chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("exported", [False, True])
def test_a_model_is_exported_once(folder, exported):
    if exported:
        (folder / "model").mkdir()
        (folder / "model/manifest.json").touch()
    subprocess.run(["make", "model"], cwd=folder, check=True, capture_output=True)
    called = (folder / "called").read_text()
    assert "evaluate demo/small" in called and ("collagan export" in called) != exported
