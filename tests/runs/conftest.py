"""A finished run that the tests of run folders share."""

import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.runs.run_folders import LOGGING, SAVING
from tests.training.small import small


@pytest.fixture(scope="session")
def finished(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed, with checkpoints at 8 and 9 and TensorBoard's files."""
    run = tmp_path_factory.mktemp("finished") / "run"
    train(small(shards.folder, **SAVING, **LOGGING), run, World())
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def limit_file_size() -> Iterator[Callable[[int | None], None]]:
    """Call it with the bytes that a file may have: a write beyond fails in the middle, as on a full disk. None: no limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limit(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before if size is None else (size, before[1]))

    yield limit
    limit(None)
    signal.signal(signal.SIGXFSZ, handler)
