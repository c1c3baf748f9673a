"""A small run with several checkpoints, and audits of copies of it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from collagan_dist.audit.finding import AuditFinding
from collagan_dist.audit.ranks import Resources
from collagan_dist.audit.record import RunRecord, Stretch
from collagan_dist.audit.stretches import audit_stretch
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.inference.score import ScoreRequest, score
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.runs.run_folders import rewrite_state
from tests.training.small import small

# The adversarial losses join within the second stretch.
AUDITED = {
    "schedule__steps": 9, "schedule__adv_from": 4, "checkpoint__every": 3, "evaluate__every": 3, "evaluate__samples": 4,
    "evaluate__baselines": 0, "log__every": 1,
}  # fmt: skip


@pytest.fixture(scope="session")
def trained(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of nine steps with checkpoints at 3, 6 and 9, evaluated."""
    run = tmp_path_factory.mktemp("audited") / "run"
    train(small(shards.folder, **AUDITED), run, World())
    score(run, World(), ScoreRequest(holes=("block", "O1")))
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="session")
def trained_elsewhere(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run by other kernels, as another kind of processor has them, and as it then records."""
    run = tmp_path_factory.mktemp("elsewhere") / "run"
    with torch.backends.mkldnn.flags(enabled=False):
        train(small(shards.folder, **AUDITED), run, World())
    for step in (3, 6, 9):
        rewrite_state(
            run / f"checkpoints/step-{step:08d}", lambda state: state["machine"].update(name="another processor")
        )
    return run


@pytest.fixture
def elsewhere(trained_elsewhere: Path, tmp_path: Path) -> Path:
    """A copy of that run."""
    return Path(shutil.copytree(trained_elsewhere, tmp_path / "elsewhere"))


@pytest.fixture
def findings(shards: Manifest, tmp_path: Path) -> Callable[..., list[AuditFinding]]:
    """findings(run, start, end, ranks, threads): those of one stretch."""

    def audited(
        run: Path, start: int, end: int, ranks: tuple[int, ...] = (1,), threads: int | None = None
    ) -> list[AuditFinding]:
        work = tmp_path / "work"
        shutil.rmtree(work, ignore_errors=True)
        return list(audit_stretch(RunRecord(run), Stretch(start, end), Resources(shards, ranks, threads, work)))

    return audited
