"""A run that is given by the URL of its copies (`checkpoint.copy_to`): its newest checkpoint in a folder of this machine's cache."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from collagan_dist import files
from collagan_dist.errors import ConfigError
from collagan_dist.places import WRITABLE, open_place
from collagan_dist.runs import checkpoint
from collagan_dist.runs.copies import BESIDE, MAX_BESIDE_BYTES, take_up
from collagan_dist.runs.layout import RunPaths


def local_run(location: str) -> Path:
    """Return a folder of the cache with the newest whole checkpoint of a run that is copied to a URL, downloaded and checked.

    Raises ConfigError where no run is copied there, CheckpointError and DataError where none can be had whole.
    """
    place = open_place(location, WRITABLE, "the copies of a run are read from")
    if isinstance(place, Path):
        return place
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "collagan_dist" / "runs"
    folder = cache / hashlib.sha256(place.url.encode()).hexdigest()[:16] / place.url.rpartition("/")[2]
    with files.command_lock(folder, "download"):
        for name in BESIDE:
            if content := place.find_file(name, MAX_BESIDE_BYTES):
                files.write_bytes(folder / name, content)
            elif name == RunPaths(folder).config.name:
                hint = "give the URL of a run below its checkpoint.copy_to"
                raise ConfigError(f"{place}: no copies of a run are there (no config.yaml); {hint}")
        if (step := take_up(place, RunPaths(folder), None, strict=False)) is not None:
            checkpoint.prune(folder / "checkpoints", step, 1)
    return folder
