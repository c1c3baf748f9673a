"""Names and paths of everything in a run folder (docs/run-folder.md says what each file holds)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from collagan_dist.types import POSITIONS

# Beside the tensors in a checkpoint.
MANIFEST_FILE, STATE_FILE = "manifest.json", "state.json"

_STEP_NAME = re.compile(r"step-([0-9]+)")


@dataclass(frozen=True)
class RunPaths:
    """The paths of one run folder, whether or not they exist."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def data(self) -> Path:
        return self.folder / "data.json"

    @property
    def world(self) -> Path:
        return self.folder / "world.json"

    @property
    def lease(self) -> Path:
        return self.folder / "lease"

    @property
    def metrics_log(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.folder / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def grids(self) -> Path:
        return self.folder / "grids"

    @property
    def grid_columns(self) -> Path:
        return self.grids / "columns.json"

    def grid(self, step: int) -> Path:
        return self.grids / f"{step_name(step)}.png"

    @property
    def evaluations(self) -> Path:
        return self.folder / "evaluation"

    def evaluation(self, split: str, hole: str, blend: str = "none", positions: str = "landmarks") -> Path:
        """The metrics of one evaluation. Its .npz and .png have the same stem: test-block, test-O1-fixed-blended."""
        # Only holes O1 to O6 have positions, so only their names say which.
        fixed = "-fixed" if hole in POSITIONS and positions == "fixed" else ""
        stem = f"{split}-{hole}{fixed}{'' if blend == 'none' else '-blended'}"
        return self.evaluations / f"{stem}.json"

    @property
    def headline_metrics(self) -> Path:
        """The evaluation on the test split with the run's own holes."""
        return self.folder / "metrics.json"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def train_log(self) -> Path:
        """What a sweep's trial printed."""
        return self.logs / "train.txt"

    @property
    def requeue(self) -> Path:
        """Marks a stop that wants to be continued; slurm/common.sh looks for it."""
        return self.folder / "requeue"

    @property
    def failed(self) -> Path:
        """Marks an end that a restart does not mend; slurm/common.sh looks for it."""
        return self.folder / "failed"

    @property
    def trial(self) -> Path:
        """The sweep's record of this trial."""
        return self.folder / "trial.json"

    def exists(self) -> bool:
        """Return whether this is a run folder: one that a training has started to write."""
        return self.config.is_file()

    def checkpoint(self, step: int) -> Path:
        return checkpoint_dir(self.checkpoints, step)

    def steps_saved(self) -> list[int]:
        return checkpoint_steps(self.checkpoints)

    def committed_steps(self) -> list[int]:
        """Return the steps whose checkpoints have a manifest, which is written last."""
        return [step for step in self.steps_saved() if (self.checkpoint(step) / MANIFEST_FILE).is_file()]

    def newest_step(self) -> int:
        """Return the step of the newest checkpoint, damaged or not; 0 without one."""
        return max(self.steps_saved(), default=0)


def step_name(step: int) -> str:
    # Padded, so that names sort like steps.
    return f"step-{step:08d}"


def step_of(name: str) -> int | None:
    """Return the step of a checkpoint's or a grid's name without suffix; None if it is neither."""
    match = _STEP_NAME.fullmatch(name)
    return int(match[1]) if match else None


def checkpoint_dir(checkpoints: Path, step: int) -> Path:
    return checkpoints / step_name(step)


def checkpoint_steps(checkpoints: Path) -> list[int]:
    """Return the steps of all checkpoints in a folder, oldest first; [] if there is no such folder.

    Their bytes are not looked at. Unfinished ones have names with a dot in front, so they are not listed.
    """
    found = checkpoints.iterdir() if checkpoints.is_dir() else ()
    return sorted(step for path in found if (step := step_of(path.name)) is not None)
