"""A run that is given by the URL of its copies (`checkpoint.copy_to`): its newest checkpoint in a folder of this machine's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from collagan_dist import files
from collagan_dist.errors import ConfigError
from collagan_dist.places import WRITABLE, Place, open_place
from collagan_dist.runs import checkpoint
from collagan_dist.runs.copies import BESIDE
from collagan_dist.runs.layout import CHECKPOINTS, MANIFEST_FILE, RunPaths, step_name
from collagan_dist.runs.taken_up import take_up

_POLL_SECONDS = 0.2
_KEEP = 2  # a command that began before may be reading the one before the newest


def local_run(location: str) -> Path:
    """Return a folder of the cache with the newest whole checkpoint of a run that is copied to a URL, downloaded and checked.

    Raises ConfigError where no run is copied there, CheckpointError and DataError where none can be had whole.
    """
    place = open_place(location, WRITABLE, "the copies of a run are read from")
    if isinstance(place, Path):
        return place
    folder = (
        files.user_cache() / "runs" / hashlib.sha256(place.url.encode()).hexdigest()[:16] / place.url.rpartition("/")[2]
    )
    with _alone(folder):
        for name in BESIDE:
            partial = folder / f".{name}"
            with files.naming_full_disk(folder):
                found = place.find_to(name, partial)
            if found:
                partial.replace(folder / name)
            elif name == RunPaths(folder).config.name:
                hint = "give the URL of a run below its checkpoint.copy_to"
                raise ConfigError(f"{place}: no copies of a run are there (no config.yaml); {hint}")
        _remove_others(place, RunPaths(folder))
        if (step := take_up(place, RunPaths(folder), None, strict=False)) is not None:
            checkpoint.prune(folder / CHECKPOINTS, step, _KEEP)
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let the other commands and ranks of this machine wait for a download, however long: then they need none of their own."""
    with files.usable_folder(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        while not files.try_lock(handle):
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(handle)


def _remove_others(place: Place, paths: RunPaths) -> None:
    """Remove checkpoints that are not, or not any more, those of the place: another run may have its name now."""
    for step in paths.committed_steps():
        folder, name = paths.checkpoint(step), f"{CHECKPOINTS}/{step_name(step)}/{MANIFEST_FILE}"
        if place.find_file(name, checkpoint.MAX_MANIFEST_BYTES) != (folder / MANIFEST_FILE).read_bytes():
            shutil.rmtree(folder)
