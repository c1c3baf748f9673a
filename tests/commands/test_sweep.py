"""`collagan sweep`: its options, and the dry run."""

from __future__ import annotations

from pathlib import Path

import pytest

from collagan_dist.data.shards.manifest import Manifest
from tests.commands.conftest import Collagan
from tests.conftest import ROOT


def test_a_dry_run_prints_the_first_trials_and_the_plan(collagan: Collagan, shards: Manifest, tmp_path: Path) -> None:
    command = [
        "sweep",
        "demo",
        "--space",
        ROOT / "cluster/sweep.yaml",
        "--data",
        shards.folder,
        "--out",
        tmp_path / "out",
    ]
    result = collagan(*command, "--trials", 4, "--set", "schedule.steps=36", "--dry-run")
    assert result.code == 0 and "# paper:" in result.out and "# the first one that is searched (random):" in result.out
    assert "# 4 trials of up to " in result.out and result.out.endswith(f"# out: {tmp_path / 'out'}\n")
    assert collagan(*command, "--trials", 4, "--set", "schedule.steps=36", "--dry-run").out == result.out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--trials", "0"), "'0' is not a whole number above 0"),
        (("--seeds", "-1"), "'-1' is not a whole number"),
        (("--gpus", "1.5"), "'1.5' is not a number of GPUs"),
        (("--space", "none.yaml"), "none.yaml"),
    ],
)
def test_usage_errors(
    more: tuple[str, ...], message: str, collagan: Collagan, shards: Manifest, tmp_path: Path
) -> None:
    command = [
        "sweep",
        "demo",
        "--space",
        ROOT / "cluster/sweep.yaml",
        "--data",
        shards.folder,
        "--out",
        tmp_path / "out",
    ]
    result = collagan(*command, "--dry-run", *more)
    assert result.code == 2 and message in result.err
