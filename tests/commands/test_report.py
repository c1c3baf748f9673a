"""`collagan report`."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.commands.conftest import Collagan


def test_a_report_of_one_run_or_several(collagan: Collagan, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    assert collagan("report", run) == (0, f"{run / 'report.html'}\n", "")
    result = collagan("report", run, trained, "--out", tmp_path / "both.html")
    assert result.out == f"{tmp_path / 'both.html'}\n" and (tmp_path / "both.html").stat().st_size > 5000
    assert collagan("report", tmp_path / "none").code == 3
