"""`collagan verify`."""

from __future__ import annotations

import shutil
from pathlib import Path

from collagan_dist.data.shards.manifest import Manifest
from tests.commands.conftest import Collagan


def test_verify_says_what_it_checked(collagan: Collagan, shards: Manifest, tmp_path: Path) -> None:
    quick, deep = collagan("verify", shards.folder), collagan("verify", shards.folder, "--deep")
    assert quick.code == deep.code == 0
    assert (
        "48 train, 6 valid, 6 test samples" in quick.out and "sizes and indexes; --deep checks every byte" in quick.out
    )
    assert "every file's hash and every sample" in deep.out
    damaged = Path(shutil.copytree(shards.folder, tmp_path / "damaged"))
    tar = sorted(damaged.glob("test-*.tar"))[0]
    tar.write_bytes(tar.read_bytes()[:-512])
    result = collagan("verify", damaged)
    assert result.code == 3 and tar.name in result.err
