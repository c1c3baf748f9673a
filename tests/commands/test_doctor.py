"""`collagan doctor`: one line a check, or one JSON object."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands.conftest import Collagan


def test_lines_and_json_say_the_same(collagan: Collagan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    lines, report = collagan("doctor"), collagan("doctor", "--json")
    checks = json.loads(report.out)["checks"]
    assert lines.code == report.code == (0 if json.loads(report.out)["sound"] else 4)
    assert [line.split()[0] for line in lines.out.splitlines()] == [check["state"] for check in checks]
    assert {check["check"] for check in checks} >= {"libraries", "devices", "storage"}


def test_a_data_set_that_is_none_is_a_failure(
    collagan: Collagan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    result = collagan("doctor", "--data", tmp_path)
    (line,) = [line for line in result.out.splitlines() if line.startswith("failed")]
    assert result.code == 4 and "manifest.json" in line
