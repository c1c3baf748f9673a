"""Packing on real Ray nodes gives the bytes of one process; errors keep their words and codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from collagan_dist.data.packing.pack import pack
from tests.conftest import collagan
from tests.data.packed import contents, recipe
from tests.sweep.ray_nodes import QUIET, ray_nodes


def test_ray_packs_the_same_bytes(copy_of_drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy_of_drawn / "Img/img_celeba/000003.jpg").write_bytes(b"")  # quarantined everywhere
    pack(recipe(copy_of_drawn, tmp_path / "here", samples_per_shard=7), workers=1)
    (tmp_path / "recipe.yaml").write_text(
        f"{{dataset: celeba, root: {copy_of_drawn}, labels: Label/img_celeba, out: x, samples_per_shard: 7, store_size: 88}}"
    )
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    command = ["pack", tmp_path / "recipe.yaml", "--out", tmp_path / "ray", "--ray"]
    with ray_nodes(2) as address:
        collagan(*command, address)
        assert contents(tmp_path / "ray") == contents(tmp_path / "here")
        labels = copy_of_drawn / "Label/img_celeba/000004.png"
        labels.unlink()
        failed = collagan("pack", tmp_path / "recipe.yaml", "--out", tmp_path / "no", "--ray", address, check=False)
        assert failed.returncode == 3 and "000004.png: the label map is missing" in failed.stderr, failed.stderr
        assert "Traceback" not in failed.stderr
    nobody = collagan(*command[:3], tmp_path / "no", "--ray", address, check=False)
    assert nobody.returncode == 4 and f"--ray {address}: no Ray cluster answers" in nobody.stderr, nobody.stderr
