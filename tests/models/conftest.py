from pathlib import Path

import pytest

from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.training.loop import train
from tests.models.peers import WORLD, train_parser


@pytest.fixture(scope="session")
def parser(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of the preset `parser`, small: what GFC's parsing loss needs."""
    run = tmp_path_factory.mktemp("parser") / "run"
    train(train_parser(shards), run, WORLD)
    return run
