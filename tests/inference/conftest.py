"""Trained models and data sets that the tests of inference share."""

import shutil
from pathlib import Path

import pytest

from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.training.small import small


@pytest.fixture(scope="session")
def trained_run(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a small M*_isd with a moving average, after 7 steps."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(small(shards.folder), folder, World())
    return folder


@pytest.fixture(scope="session")
def parser_run(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a small M_s that can tell some parts of a face."""
    run = tmp_path_factory.mktemp("parser") / "run"
    changes = {"model__tasks": ["segmentation"], "hole": {"kind": "none"}, "schedule__steps": 60, "schedule__batch": 8,
               "schedule__adv_from": 60, "model__noise": 0.0, "model__widths": {"generator": 8, "discriminator": 4},
               "optim__generator": {"lr": 0.005}, "checkpoint__every": 30}  # fmt: skip
    train(small(shards.folder, **changes), run, World())
    return run


@pytest.fixture(scope="session")
def landmarks_run(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a small M_d after one step."""
    run = tmp_path_factory.mktemp("landmarks") / "run"
    train(small(shards.folder, model__tasks=["landmarks"], schedule__steps=1), run, World())
    return run


@pytest.fixture
def unlabelled(copy_of_drawn: Path) -> Path:
    """The drawn faces without their label maps."""
    shutil.rmtree(copy_of_drawn / "Label")
    return copy_of_drawn
