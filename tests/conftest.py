"""Data sets that tests share, and what they need of the machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import where
from collagan_dist.data.draw import draw_faces
from collagan_dist.data.manifest import Manifest, read_manifest
from collagan_dist.data.pack import pack
from collagan_dist.data.recipe import Recipe

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 drawn faces in CelebA's layout."""
    out = tmp_path_factory.mktemp("drawn") / "faces"
    draw_faces(out, count=60, seed=3, workers=1)
    return out


@pytest.fixture(scope="session")
def shards(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The drawn faces packed for 64x64 pictures, in several shards a split."""
    out = tmp_path_factory.mktemp("shards") / "packed"
    recipe = Recipe(
        dataset="celeba", root=str(drawn), labels="Label/img_celeba", out=str(out), samples_per_shard=20, store_size=88
    )
    pack(recipe, workers=1)
    return read_manifest(out)


@pytest.fixture
def faces() -> Path:
    """102 photographs in CelebA's layout."""
    folder = os.environ.get("COLLAGAN_FACES")
    if not folder:
        pytest.skip("COLLAGAN_FACES does not name the folder of photographs")
    return Path(folder)


@pytest.fixture
def copy_of_drawn(drawn: Path, tmp_path: Path) -> Path:
    """A copy of the drawn faces to damage."""
    return Path(shutil.copytree(drawn, tmp_path / "faces"))


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Keeps what a fault row's rounds did in benchmarks/faults.json, when `make test-full` runs them."""

    def write(row: str, **facts: object) -> None:
        if os.environ.get("COLLAGAN_FULL") == "1":
            path = ROOT / "benchmarks/faults.json"
            known = json.loads(path.read_text()) if path.exists() else {}
            known[f"row {row}"] = {"test": request.node.nodeid, **facts, **where()}
            path.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")

    return write


def collagan(
    *args: object, cwd: Path | None = None, ranks: int = 0, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it; under torchrun with `ranks`."""
    start = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m", "--"] if ranks else ["-m"]
    )
    result = subprocess.run(
        [sys.executable, *start, "collagan_dist", *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert not check or result.returncode == 0, result.stdout + result.stderr
    return result


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch

    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            if "gpu" in os.environ.get("COLLAGAN_REQUIRE", "").split(","):
                item.add_marker(pytest.mark.usefixtures("missing_gpu"))
            else:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if item.get_closest_marker("full") and os.environ.get("COLLAGAN_FULL") != "1":
            item.add_marker(pytest.mark.skip(reason="many rounds: make test-full"))


@pytest.fixture
def missing_gpu() -> None:
    pytest.fail("COLLAGAN_REQUIRE asks for a GPU, and torch finds none")
