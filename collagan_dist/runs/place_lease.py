"""PLACE/RUN/lease: which start of which run may copy its checkpoints there (`checkpoint.copy_to`).

The text of RUN/lease, and whose run it is. A start watches it as it watches RUN/lease, in slower beats. Stores have no locks: of two starts
that claim a place in the same second both may begin. The one that wrote first finds out as it reads the lease once more, or at the latest
before it copies anything.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from collagan_dist import files, structured
from collagan_dist.errors import ClusterError, ConfigError, DataError
from collagan_dist.places import Place, Unreachable
from collagan_dist.runs.layout import CHECKPOINTS, RunPaths
from collagan_dist.runs.lease import MAX_LEASE_BYTES, LeaseRequest, Owner, parse_owner, this_process

logger = logging.getLogger(__name__)

BEAT_SECONDS = 20.0  # a request each, so rarer than on a disk
_POLL_SECONDS = 2.0
_FILE = "lease"
_RUN = re.compile("^[0-9a-f]{16}$")


class _CopyRecord(structured.Record):
    """RUN/copy.json: by which a run knows its own copies again, wherever its folder is moved."""

    run: Annotated[str, Field(pattern=_RUN.pattern)]


class PlaceLease:
    """The right of this start to copy into a place. `check` and `beat` raise ClusterError once another start has taken it.

    Threads may share it: one copies, one beats.
    """

    def __init__(self, place: Place, run: str, identity: str, owner: Owner, former: str) -> None:
        self.place, self.run, self.identity, self.owner = place, run, identity, owner
        self._beats, self._written = 0, 0.0
        self._lock = threading.Lock()
        self._write(lambda: self._expect(owner.token, former))

    def check(self) -> None:
        """Raise ClusterError if another start has taken the place."""
        self._expect(self.owner.token)

    def _expect(self, *tokens: str) -> None:
        owner = parse_owner(_read(self.place))
        if owner.token not in tokens:
            newer = (
                f"start {owner.generation} on host {owner.host} has taken over"
                if owner.token
                else "its `lease` was removed"
            )
            raise ClusterError(f"{self.place}: {newer}, so this start copies nothing more there")

    def beat(self) -> None:
        """Show that this start is alive, if that is due."""
        with self._lock:
            if not self.owner.ended and time.monotonic() - self._written >= BEAT_SECONDS:
                self._beats += 1
                self._write(self.check)

    def release(self) -> None:
        """Record that this start has ended, so that the next one need not wait."""
        with self._lock:
            self.owner = replace(self.owner, state="ended")
            self._write(self.check)

    def _write(self, check: Callable[[], None]) -> None:
        self._written = time.monotonic()
        text = f"{self.owner.text()}run {self.run}\nidentity {self.identity}\nbeats {self._beats}\n"
        # Before each try: minutes may pass between two. And after it: another start may have written in between.
        self.place.write(_FILE, text.encode(), check)
        self.check()


def claim(place: Place, paths: RunPaths, own: Owner, identity: Mapping[str, Any], allow_change: bool) -> PlaceLease:
    """Take a place for a run, waiting where it is unclear whether the start before lives.

    `own` is the owner of the run folder, `identity` its identity keys. Raises ConfigError where the place is another run's,
    ClusterError where another start copies there.
    """
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    request = LeaseRequest(place, own.job)
    while True:
        text = _read(place)
        words = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
        # Also without a lease: somebody may have removed it, and the copies are still one run's.
        used = bool(text or place.files_below(CHECKPOINTS))
        run = _run_id(place, paths, words, digest, allow_change) if used else None
        former, beats = parse_owner(text), words.get("beats", "")
        if request.is_free(former, int(beats) if re.fullmatch("[0-9]{1,15}", beats) else 0):
            break
        time.sleep(_POLL_SECONDS)
    known = _known(paths)
    if known and not used:  # a disk that is not mounted looks like a new place
        step = paths.newest_step()
        logger.warning(
            "warning: there are no copies at %s, though this run was copied; it begins at step %s", place, step
        )
    run = run or known or secrets.token_hex(8)
    files.write_json(paths.copy, {"run": run})
    owner = this_process(former.generation + 1, own.token, own.job, BEAT_SECONDS)
    try:
        return PlaceLease(place, run, digest, owner, former.token)
    except DataError as error:
        # Or the next start would miss copies that never were. Without an answer, nobody knows whether there are any.
        if not known and not isinstance(error, Unreachable):
            paths.copy.unlink(missing_ok=True)
        raise


def _run_id(place: Place, paths: RunPaths, words: Mapping[str, str], identity: str, allow_change: bool) -> str:
    """Return the id of the run whose copies are there, "" where nothing says it. Raises ConfigError where it is another one than this."""
    there, known = words.get("run", ""), _known(paths)
    if not _RUN.match(there):
        there = ""
    if known and known == (there or known):
        return known
    # A new folder takes up what was copied; one with checkpoints of its own would mix two runs.
    if paths.steps_saved():
        problem = "and this run folder has checkpoints of its own"
    elif not there or words.get("identity") == identity or allow_change:
        return there  # what is taken up without one is compared by its state
    else:
        problem = "of another configuration or other data (--allow-config-change takes it up all the same)"
    raise ConfigError(
        f"{place}: holds the copies of another run, {problem}; give a run folder of another name, or another checkpoint.copy_to"
    )


def _known(paths: RunPaths) -> str | None:
    found = structured.find(paths.copy, _CopyRecord)
    return found.run if found else None


def _read(place: Place) -> str:
    return (place.find_file(_FILE, MAX_LEASE_BYTES) or b"").decode(errors="replace")
