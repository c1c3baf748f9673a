"""PBT's exploit on disk: a trial continues from the checkpoint of another one, in two renames that a kill cannot break."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from collagan_dist import files
from collagan_dist.runs.layout import RunPaths


def adopt_checkpoint(member: Path, donor: Path, step: int) -> None:
    """Replace a run's checkpoint of a step by the donor run's."""
    target = RunPaths(member).checkpoint(step)
    # Names with a dot in front are no checkpoints to any reader, so a half copied one is never resumed from.
    adopted, own = target.with_name(f".{target.name}.adopted"), target.with_name(f".{target.name}.own")
    for leftover in (adopted, own):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(RunPaths(donor).checkpoint(step), adopted, copy_function=_link)
    # A folder cannot be replaced by one rename, so there is a moment with neither; undo_interrupted_adoptions mends it.
    if target.exists():
        target.rename(own)
    adopted.rename(target)
    files.fsync_folder(target.parent)
    shutil.rmtree(own, ignore_errors=True)


def undo_interrupted_adoptions(out: Path) -> None:
    """Restore the checkpoints of a sweep's trials that a kill between the two renames left set aside."""
    for own in out.glob("trials/t*/checkpoints/.step-*.own"):
        target = own.with_name(own.name.removeprefix(".").removesuffix(".own"))
        if not target.exists():
            own.rename(target)


def _link(source: str, target: str) -> None:
    # Checkpoint files never change after they are written, so a hard link is as good as a copy and costs nothing.
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
