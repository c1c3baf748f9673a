"""`collagan label`: label maps by a run that segments, and their agreement with existing maps."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.commands.conftest import Collagan


def test_labels_and_compares(collagan: Collagan, trained: Path, copy_of_drawn: Path, tmp_path: Path) -> None:
    for name in ("Img/img_celeba/000003.jpg", "Img/img_celeba/000004.jpg"):
        (copy_of_drawn / name).write_bytes(b"damaged")
    out = tmp_path / "maps"
    result = collagan("label", copy_of_drawn, "--model", trained, "--out", out, "--batch", 20)
    assert result.code == 0 and f"{out}: 58 label maps; next: collagan pack shards/celeba.yaml" in result.out
    assert f"--set labels={out}" in result.out and "2 unusable pictures have no label map" in result.out
    assert "no label map for 000003" in result.out
    again = collagan("label", copy_of_drawn, "--model", trained, "--out", out)
    assert "58 label maps (58 were there)" in again.out
    checked = collagan("label", copy_of_drawn, "--model", trained, "--check")
    rows = [line.split() for line in checked.out.splitlines()]
    assert checked.code == 0 and "58 pictures against" in checked.out
    assert {"skin", "face"} & {row[0] for row in rows if row} and "2 unusable ones were left out" in checked.out
    shutil.rmtree(out)


def test_usage_errors(collagan: Collagan, trained: Path, tmp_path: Path) -> None:
    assert collagan("label", tmp_path).code == 2  # no --model
    assert collagan("label", tmp_path, "--model", trained, "--batch", 0).code == 2
