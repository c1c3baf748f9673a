"""The room that checkpoints will take, said before a run or a sweep starts, and refused where it is not there."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from collagan_dist import files
from collagan_dist.config.tree import Checkpoint
from collagan_dist.runs.layout import RunPaths
from collagan_dist.units import format_bytes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DiskNeed:
    """Checkpoints that will be added to those in `folder`, of about `size` bytes: `least` are sure to come, `most` at a time.

    `what` names the most.
    """

    folder: Path
    size: int
    least: int
    most: int
    what: str

    def __str__(self) -> str:
        return f"disk: {self.what} in {self.folder}, {format_bytes(self.most * self.size)} in all"

    def check(self) -> None:
        """Say what is needed and what is free. Raises DiskFull where the least do not fit."""
        if not self.most:
            return
        # The folder may not be there yet.
        free = files.free_bytes(next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists()))
        text = f"{self}; free: {'unknown' if free is None else format_bytes(free)}"
        if free is not None and free < self.least * self.size:
            raise files.DiskFull(f"{text}; make room, or choose another folder", 0)
        # Not refused: others may make room, and a checkpoint without room is reported and written later.
        short = free is not None and free < self.most * self.size
        logger.info("%s%s%s", "warning: " * short, text, "; make room, or lower checkpoint.keep" * short)


def need_of_run(paths: RunPaths, keeping: Checkpoint, size: int, stop_at: int) -> DiskNeed:
    """Return what a start of a run will add until step `stop_at`, its last."""
    kept, done = len(paths.steps_saved()), paths.newest_step()
    # The last step has one, too.
    saves = -(-stop_at // keeping.every) - done // keeping.every if done < stop_at else 0
    # A new one is written before the oldest goes.
    most = min(saves, keeping.keep + 1 - min(kept, keeping.keep))
    what = f"{most} more checkpoint{'s' * (most != 1)} of {format_bytes(size)}"
    return DiskNeed(paths.folder, size, min(saves, 1), most, what)
