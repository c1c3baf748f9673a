"""Names and paths of everything in a run folder (docs/run-folder.md says what each file holds)."""

from __future__ import annotations

import re
from pathlib import Path

from collagan_dist.structured import Count, Record
from collagan_dist.types import POSITIONS

# Beside the tensors in a checkpoint.
MANIFEST_FILE, STATE_FILE = "manifest.json", "state.json"

CHECKPOINTS = "checkpoints"  # also below a place of copies

_STEP_NAME = re.compile(r"step-([0-9]+)")


class DataRecord(Record):
    """What is read of data.json: where the shards are, and the hash of their manifest."""

    shards: str | None = None
    manifest: str | None = None


class WorldRecord(Record):
    """What is read of world.json."""

    generation: Count


class RankRecord(Record):
    """A rank in world.json."""

    host: str
    device: str
    name: str = ""
    memory_bytes: Count | None = None  # of a GPU


class RanksRecord(Record):
    """Which ranks world.json says a run has."""

    ranks: tuple[RankRecord, ...]


class RunPaths:
    """The paths of one run folder, whether or not they exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.yaml"
        self.data = folder / "data.json"
        self.world = folder / "world.json"
        self.lease = folder / "lease"
        self.copy = folder / "copy.json"  # the id of the run, by which it knows its copies again
        self.metrics_log = folder / "metrics.jsonl"
        self.tensorboard = folder / "tensorboard"
        self.checkpoints = folder / CHECKPOINTS
        self.grids = folder / "grids"
        self.grid_columns = self.grids / "columns.json"
        self.evaluations = folder / "evaluation"
        # The evaluation on the test split with the run's own holes, also where evaluations have other names.
        self.headline_metrics = folder / "metrics.json"
        self.report = folder / "report.html"
        self.logs = folder / "logs"
        self.train_log = self.logs / "train.txt"  # what a sweep's trial printed
        # Marks for the batch script, slurm/common.sh: a stop that wants to be continued, an end that no restart mends.
        self.requeue = folder / "requeue"
        self.failed = folder / "failed"
        self.trial = folder / "trial.json"  # the sweep's record of this trial
        self.reported = folder / "reported.json"  # manifest of the checkpoint that Ray Tune has of this trial

    def tracker(self, name: str) -> Path:
        """Return the folder of a tracker's sink, by its name in log.sinks."""
        return self.folder / name

    def grid(self, step: int) -> Path:
        return self.grids / f"{step_name(step)}.png"

    def evaluation(
        self, split: str, hole: str, blend: str = "none", positions: str = "landmarks", variant: str = ""
    ) -> Path:
        """Return the path of an evaluation's metrics: test-block.json, test-O1-fixed-blended.json.

        `variant` (evaluation_name.py) says which data or settings, where they are not the run's own.
        The result's samples (.npz) and its sheet of pictures (.png) have the same stem.
        """
        # Only holes O1 to O6 have positions, so only their names say which.
        fixed = "-fixed" if hole in POSITIONS and positions == "fixed" else ""
        return self.evaluations / f"{split}-{hole}{fixed}{'' if blend == 'none' else '-blended'}{variant}.json"

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

    Their bytes are not checked. Raises OSError for a folder that cannot be read.
    """
    try:
        names = [path.name for path in checkpoints.iterdir()]
    # No other error: a folder that cannot be read is not one without checkpoints.
    except (FileNotFoundError, NotADirectoryError):
        return []
    # Unfinished ones have a dot in front, so they are not listed.
    return sorted(step for name in names if (step := step_of(name)) is not None)
