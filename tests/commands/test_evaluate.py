"""`collagan evaluate`: the table and the file of each kind of hole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.commands.conftest import Collagan


def test_each_hole_has_a_table_and_a_file(collagan: Collagan, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    result = collagan("evaluate", run, "--hole", "block,O1", "--split", "valid", "--set", "evaluate.baselines=0")
    files = [run / "evaluation" / f"valid-{hole}.json" for hole in ("block", "O1")]
    assert result.code == 0 and all(str(file) in result.out for file in files)
    assert result.out.count("PSNR in the hole, dB") == 2 and "6 valid samples, O1 holes" in result.out
    psnr = json.loads(files[0].read_text())["psnr"]
    assert f" {psnr:.2f} " in result.out


def test_usage_errors(collagan: Collagan, trained: Path) -> None:
    result = collagan("evaluate", trained, "--hole", "block,round")
    assert result.code == 2 and "'round' is not a kind of hole; choose from block" in result.err
    assert collagan("evaluate", trained, "--blend", "maybe").code == 2
    assert "--set model.name=ce" in collagan("evaluate", trained, "--set", "model.name=ce").err
