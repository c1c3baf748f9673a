"""The undisturbed training with which those on the cluster are compared."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from collagan_dist.data.shards.manifest import Manifest
from tests.conftest import collagan
from tests.slurm.training import write_config
from tests.training.small import equal, weights


@dataclass(frozen=True)
class Undisturbed:
    """A configuration, and the run of two ranks that nobody disturbed, on this machine, with a checkpoint every 10 steps."""

    config: Path
    run: Path
    steps: int

    def equals(self, other: Path, step: int) -> bool:
        """Whether a run has the same weights, moments and averages at a step, bit for bit."""
        return equal(weights(other, step), weights(self.run, step))


@pytest.fixture(scope="session")
def undisturbed(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    config = write_config(folder, shards.folder, schedule__steps=100)
    collagan("train", config, "--out", folder / "run", ranks=2)
    return Undisturbed(config, folder / "run", 100)
