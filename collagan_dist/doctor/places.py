"""Checks of places that need not exist: a home folder, a folder for temporary files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from collagan_dist import files
from collagan_dist.doctor.finding import Finding, ok, warning

_MIN_TEMPORARY_BYTES = 1 << 28
# Ray's sockets have short paths only there.
_RAY_FOLDER = Path("/tmp")


def check_home() -> Iterator[Finding]:
    """Check that there is a home folder: caches of shards, of compiled code and of libraries are there."""
    home = Path.home()  # commands/main.py has given one to a user without
    if home.is_dir() and os.access(home, os.W_OK):
        yield ok("home", str(home))
        return
    mend = "set HOME to a folder that can be written; for shards behind a URL alone, data.cache.folder"
    yield warning("home", f"{home} cannot be written by this user (id {os.geteuid()})", mend)


def check_temporary(folder: Path = _RAY_FOLDER) -> Iterator[Finding]:
    """Check the folders of temporary files: Python's, and the one that Ray uses."""
    places = {folder}
    try:
        places.add(Path(tempfile.gettempdir()))
    except FileNotFoundError as error:
        yield warning(
            "temporary",
            error.strerror or "there is no folder for them",
            "set TMPDIR to a folder that can be written",
        )
        return
    for place in sorted(places):
        who = "`collagan sweep` without --ray" if place == folder else "`collagan verify --deep` of a URL"
        if not os.access(place, os.W_OK):
            yield warning("temporary", f"{place} cannot be written, which {who} needs", "mount a tmpfs there")
            return
        free = files.free_bytes(place)
        if free is not None and free < _MIN_TEMPORARY_BYTES:
            refused = f", refused under {files.LEAST_TEMPORARY_BYTES >> 20} MB" if place == folder else ""
            text = f"{place} has {free >> 20} MB free, and {who} needs it{refused}"
            yield warning("temporary", text, f"make room: {_MIN_TEMPORARY_BYTES >> 20} MB or more")
            return
    yield ok("temporary", ", ".join(map(str, sorted(places))))
