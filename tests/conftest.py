"""Data sets that tests share, and what they need of the machine."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from benchmarks import where
from collagan_dist.data.packing.pack import pack
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.data.shards.manifest import Manifest, read_manifest
from collagan_dist.faces.layout import draw_faces
from collagan_dist.log import log_to_stderr
from tests.data.stores import S3, moto_server, s3_store
from tests.slurm.cluster import Cluster, missing_slurm

ROOT = Path(__file__).parent.parent
# As for somebody who works in this environment: commands that are printed name `collagan` without its path.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
SLURM = "slurm"  # in the names of all tests that need its daemons
LONG = (SLURM, "tests/virtual/", "tests/whole/", "tests/test_tutorial.py", "tests/distributed/", "tests/faults/")

log_to_stderr()  # as every command does: tests in this process read it by capsys


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 drawn faces in CelebA's layout."""
    out = tmp_path_factory.mktemp("drawn") / "faces"
    draw_faces(out, count=60, seed=3, workers=1)
    return out


@pytest.fixture(scope="session")
def shards(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    out = tmp_path_factory.mktemp("shards") / "packed"
    pack(small_recipe(drawn, out), workers=1)
    return read_manifest(out)


def small_recipe(faces: Path, out: Path) -> Recipe:
    """Drawn faces for 64x64 pictures, in several shards a split."""
    return Recipe(
        dataset="celeba", root=str(faces), labels="Label/img_celeba", out=str(out), samples_per_shard=20, store_size=88
    )


@pytest.fixture(scope="session")
def moto() -> Iterator[int]:
    """The port of moto's S3, shared by all tests of this process; each uses a bucket of its own."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    with moto_server() as port:
        yield port


@pytest.fixture
def s3(moto: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """An empty bucket."""
    bucket = f"bucket-{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:16]}"
    with s3_store(moto, bucket, monkeypatch) as store:
        yield store


@pytest.fixture
def faces() -> Path:
    """102 photographs in CelebA's layout."""
    folder = os.environ.get("COLLAGAN_FACES")
    if not folder:
        pytest.skip("COLLAGAN_FACES does not name the folder of photographs")
    return Path(folder)


@pytest.fixture
def copy_of_drawn(drawn: Path, tmp_path: Path) -> Path:
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


@pytest.fixture
def no_nohup() -> Iterator[None]:
    """A hangup is not ignored, although the tests themselves may run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def collagan(
    *args: object, cwd: Path | None = None, ranks: int = 0, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it; under torchrun with `ranks`."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m"] if ranks else ["-m"]
    result = subprocess.run(
        [sys.executable, *start, "collagan_dist", *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert not check or result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running Slurm cluster of three nodes, shared by all tests marked `slurm`. Leave its nodes on, whole and idle."""
    with Cluster(nodes=3) as cluster:
        yield cluster


def _missing_gpu() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "no CUDA device"


def _missing_browser() -> str | None:
    return None if shutil.which("chromium") else "no chromium on PATH"


def _missing_dashboard() -> str | None:
    return (
        None if find_spec("opencensus") else "Ray's dashboard is not installed: pip install 'collagan_dist[dashboard]'"
    )


# Marker: why the machine cannot run the tests that have it, or None.
NEEDS = {"gpu": _missing_gpu, "slurm": missing_slurm, "browser": _missing_browser, "dashboard": _missing_dashboard}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes first: at the end one worker would have them alone. Slurm's tests wait more than they compute."""
    items.sort(key=lambda item: next((n for n, part in enumerate(LONG) if part in item.nodeid), len(LONG)))


class FilesAndSlurm(LoadFileScheduling):
    """pytest-xdist's `--dist loadfile`, with all files that need Slurm on one worker: two clusters would share addresses."""

    def _split_scope(self, nodeid: str) -> str:
        return SLURM if SLURM in nodeid else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FilesAndSlurm:
    return FilesAndSlurm(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what the machine lacks, or fail where COLLAGAN_REQUIRE names it."""
    if item.get_closest_marker("full") and os.environ.get("COLLAGAN_FULL") != "1":
        pytest.skip("many rounds: make test-full")
    required = os.environ.get("COLLAGAN_REQUIRE", "").split(",")
    for need, missing in NEEDS.items():
        if item.get_closest_marker(need) and (reason := missing()):
            if need in required:
                pytest.fail(f"COLLAGAN_REQUIRE asks for {need}: {reason}", pytrace=False)
            pytest.skip(reason)
