"""The copies of a run (`checkpoint.copy_to`) as one start uses them, on all ranks: rank 0 alone talks to the place."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from collagan_dist.distributed.group import Group
from collagan_dist.errors import ClusterError, ConfigError
from collagan_dist.places import Place, Unreachable, Unusable
from collagan_dist.runs.async_checkpoint import LogEvent
from collagan_dist.runs.copies import Copies
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.lease import Lease
from collagan_dist.runs.place_lease import claim
from collagan_dist.runs.taken_up import take_up

logger = logging.getLogger(__name__)

_POLL_SECONDS = 2.0  # before the other ranks hear again that rank 0 is alive
_COPY_SECONDS = 600.0  # that the end of a run waits for its last copy
_COPY_SECONDS_INTERRUPTED = 15.0  # of the 30 s that schedulers leave between a warning and the kill


class CopiedRun:
    """A run that is copied to a place, from `open` to `close`."""

    def __init__(self, place: Place, paths: RunPaths, keep: int, group: Group) -> None:
        self.place, self.paths, self.keep, self.group = place, paths, keep, group
        self._opened = False
        self._copies: Copies | None = None  # on rank 0, once it is opened

    def open(
        self,
        lease: Lease | None,
        identity: Mapping[str, Any],
        allow_change: bool,
        strict: bool,
        undo: Callable[[], None],
    ) -> None:
        """Claim the place, take up what is newer there, and begin to copy. Collective; once in a start.

        Raises ClusterError for a place that does not answer (a later start may have more luck) and for one that another start has,
        ConfigError, DataError and CheckpointError. Before it raises, rank 0 calls `undo`.
        """
        if self._opened:  # a rollback goes back to what is here
            return

        def work() -> None:
            assert lease is not None
            try:
                claimed = claim(self.place, self.paths, lease.owner, identity, allow_change)
                self._copies = Copies(self.place, self.paths, self.keep, claimed)
                take_up(self.place, self.paths, lease, strict, self._copies.distrust)
            except Exception as error:
                undo()  # before other ranks hear of it, which leave marks in the run folder
                if isinstance(error, Unreachable):
                    raise ClusterError(f"{error}; so it is unknown whether newer checkpoints are there") from None
                if isinstance(error, Unusable):
                    raise ConfigError(f"checkpoint.copy_to: {error}") from None
                raise
            self._copies.request()  # what an earlier start left

        self.group.on_rank0_for_long(work)
        self._opened = True

    def request(self) -> None:
        """Copy what is new. Returns at once."""
        if self._copies is not None:
            self._copies.request()

    def wait(self, log_event: LogEvent, interrupted: bool = False) -> None:
        """Wait until the last checkpoint is copied, for a bounded time; then say what is missing. Collective.

        What failed is tried once more, since no checkpoint follows with which it would be.
        """
        deadline = time.monotonic() + (_COPY_SECONDS_INTERRUPTED if interrupted else _COPY_SECONDS)
        tries = 2

        def poll() -> bool:
            nonlocal tries
            left = deadline - time.monotonic()
            if self._copies is None or left <= 0:
                return True
            if not self._copies.wait(min(left, _POLL_SECONDS)):
                return False
            tries -= 1
            if again := self._copies.failed and tries > 0:
                self._copies.request()
            return not again

        while not self.group.on_rank0(poll):
            pass
        self.log_failures(log_event)
        if self._copies is not None and not self._copies.wait(0):
            newest = self.paths.newest_step()
            logger.warning(
                "warning: step %s is not yet copied to %s: the next start of this run does it", newest, self.place
            )

    def log_failures(self, log_event: LogEvent) -> None:
        """Write an event for each copy that failed since the last call. On rank 0; nothing on others."""
        for step, reason in self._copies.take_failures() if self._copies else []:
            log_event(step, "copy_failed", reason=reason)

    def close(self) -> None:
        """Give up the place. Not collective."""
        if self._copies is not None:
            self._copies.close()
