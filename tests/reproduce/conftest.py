"""A reproduction that was trained without interruption, and one whose numbers are those of the paper."""

import io
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.reproduce.plan import PlannedRun
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.commands.conftest import call
from tests.reproduce.evaluated import as_printed
from tests.reproduce.small import TABLE_3, two_models, words, write_small
from tests.training.small import small


@pytest.fixture(scope="session")
def undisturbed(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reproduction of Table 3 with two models, in one go."""
    folder = tmp_path_factory.mktemp("undisturbed")
    out, printed = folder / "out", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        two_models(patch)
        assert call(*words(write_small(folder), shards.folder, out, *TABLE_3)) == 0
    assert f"report: {out / 'report.html'}" in printed.getvalue() and "landmark error, pixels" in printed.getvalue()
    return out


@pytest.fixture(scope="session")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[PlannedRun]:
    """Every model of Table 1, evaluated as the paper prints it."""
    return as_printed(tmp_path_factory.mktemp("printed"))


@pytest.fixture(scope="session")
def trained(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> PlannedRun:
    """M*_isd after two steps."""
    config = small(shards.folder, schedule__steps=2, optim__ema=0.0)
    run = PlannedRun("M*_isd", "M*_isd", config, tmp_path_factory.mktemp("figures"), 2)
    train(config, run.folder, World())
    return run
