"""Commands run in this process, and one small run that they use."""

from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from collagan_dist.commands.main import main
from collagan_dist.data.shards.manifest import Manifest

SMALL = ["--set", "data.image_size=32", "--set", "model.widths.generator=4", "--set", "model.widths.discriminator=4",
         "--set", "schedule.steps=2", "--set", "schedule.batch=8", "--set", "log.every=1"]  # fmt: skip


Result = namedtuple("Result", "code out err")


def call(*args: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in args])
    return int(stop.value.code or 0)


@pytest.fixture
def collagan(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """`collagan ARGS` in this process."""
    return lambda *args: Result(call(*args), *capsys.readouterr())


@pytest.fixture(scope="session")
def trained(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    assert call("train", "demo", "--data", shards.folder, "--run", run, *SMALL) == 0
    return run
