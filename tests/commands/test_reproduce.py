"""`collagan reproduce`: its options, and the dry run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from collagan_dist.data.shards.manifest import Manifest
from tests.commands.conftest import Collagan
from tests.reproduce.small import write_small


def test_a_dry_run_prints_every_run(collagan: Collagan, shards: Manifest, tmp_path: Path) -> None:
    command = [
        "reproduce",
        write_small(tmp_path),
        "--data",
        shards.folder,
        "--out",
        tmp_path / "out",
        "--scale",
        "0.01",
    ]
    result = collagan(*command, "--tables", "3", "--figures", "", "--seeds", "2", "--dry-run")
    rows = [line.split() for line in result.out.splitlines()]
    assert result.code == 0 and ["run", "steps", "samples", "done", "time", "left", "storage"] in rows
    assert ["M_d", "3", "12", "0%", "unknown", "unknown"] in rows and ["18", "72", "unknown", "unknown"] in rows
    assert [row[0] for row in rows if row[1:2] == ["3"]] == [
        "M*_isd",
        "M*_isd-seed1",
        "M_isd",
        "M_isd-seed1",
        "M_id",
        "M_d",
    ]
    assert not (tmp_path / "out").exists()


def test_a_dry_run_answers_without_torch(shards: Manifest, tmp_path: Path) -> None:
    """Whose import takes longer than the answer."""
    code = (
        "import sys; from collagan_dist.commands.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('torch' in sys.modules)"
    )
    words = ["reproduce", str(write_small(tmp_path)), "--data", str(shards.folder), "--out", "out", "--dry-run"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.endswith("False\n"), done.stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--tables", "1,4"), "'4' is not one of 1, 2, 3"),
        (("--figures", "2"), "'2' is not one of 1, 3, 4, 5, 6"),
        (("--scale", "0"), "'0' is not a number above 0"),
        (("--seeds", "0"), "'0' is not a whole number above 0"),
        (("--ranks", "2", "--ray", "auto"), "not allowed with"),
        (("--tables", "", "--figures", "none"), "--tables and --figures: name at least one"),
    ],
)  # fmt: skip
def test_usage_errors(
    more: tuple[str, ...], message: str, collagan: Collagan, shards: Manifest, tmp_path: Path
) -> None:
    config = write_small(tmp_path)
    result = collagan("reproduce", config, "--data", shards.folder, "--out", tmp_path / "out", "--dry-run", *more)
    assert result.code == 2 and message in result.err and not (tmp_path / "out").exists()
