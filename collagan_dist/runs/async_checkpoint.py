"""The checkpoints of one start: copied in the step, written beside the following ones, and what becomes of a disk that fails."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from collagan_dist.distributed.group import Group
from collagan_dist.errors import CheckpointError
from collagan_dist.models.networks import Networks
from collagan_dist.runs import checkpoint
from collagan_dist.runs.checkpoint import WriteFailed
from collagan_dist.runs.lease import Lease
from collagan_dist.runs.snapshot import Snapshot, Writer

# event(step, name, **facts): a line of metrics.jsonl.
Tell = Callable[..., None]

_PATIENCE = (
    20.0  # seconds after which the other ranks hear that rank 0 still writes, and are not left to think that it hangs
)


class Saves:
    """Rank 0 writes, one checkpoint at a time; the others learn how it went when all meet at the next one.

    `seconds` adds up how long training stood still for it.
    """

    def __init__(self, folder: Path, group: Group, keep: int, max_failures: int) -> None:
        self.folder, self.group, self.keep, self.max_failures = folder, group, keep, max_failures
        self.seconds = 0.0
        self._snapshot, self._writer = Snapshot(), Writer()
        self._failures = 0

    def save(
        self, networks: Networks, step: int, state: Callable[[], Mapping[str, Any]], lease: Lease | None, tell: Tell
    ) -> None:
        """Copy what is learned and begin to write it. Collective; waits for the write before it.

        Raises CheckpointError, on all ranks, when max_failures in a row have failed by then.
        """
        began = time.perf_counter()
        self.settle(tell)
        tensors = networks.tensors()
        self.group.on_rank0(lambda: self._start(tensors, step, state(), lease))
        self.seconds += time.perf_counter() - began

    def _start(self, tensors: Mapping[str, Any], step: int, state: Mapping[str, Any], lease: Lease | None) -> None:
        assert lease is not None
        with suppress(OSError):  # storage that is away for a moment costs a checkpoint, as the write will tell
            lease.check()
        copies = self._snapshot.take(tensors)

        def write() -> None:
            try:
                checkpoint.save(self.folder, step, copies, state, self.keep, lease.held, f"-{lease.owner.token[:8]}")
            except WriteFailed:
                with suppress(OSError):
                    lease.check()  # a newer start sweeps the folder: no fault of the disk
                raise

        self._writer.start(step, write, lambda error: self._warn(error, lease))

    def _warn(self, error: Exception, lease: Lease) -> None:
        if isinstance(error, WriteFailed) and lease.mine(fresh=True):
            print(f"warning: {error}; the run goes on without this one", file=sys.stderr, flush=True)

    def settle(self, tell: Tell, must: bool = False) -> None:
        """Wait until what was saved is on disk. Collective.

        Raises CheckpointError, on all ranks, after max_failures in a row, or at the first one where it `must` be there.
        """
        slice_of_time = min(_PATIENCE, self.group.timeout / 4)
        while not self.group.on_rank0(lambda: self._writer.wait(slice_of_time)):
            pass
        self.group.on_rank0(lambda: self._judge(tell, must))

    def _judge(self, tell: Tell, must: bool) -> None:
        written = self._writer.written()
        if written is None:
            return
        error = written.error
        if error is None:
            self._failures = 0
            return
        if not isinstance(error, WriteFailed):
            raise error
        self._failures += 1
        tell(written.step, "checkpoint_failed", reason=str(error), needed=error.needed, free=error.free)
        if must or self._failures >= self.max_failures:
            newest = checkpoint.steps(self.folder)
            rest = f"the newest checkpoint is step {newest[-1]}" if newest else "there is no checkpoint yet"
            row = f" {self._failures} in a row could not be written." if self._failures > 1 else ""
            raise CheckpointError(
                f"{error}.{row} Step {written.step} is not saved, {rest}; make room, then run the same command"
            )

    def close(self) -> None:
        """Let rank 0's thread end, whatever becomes of the others."""
        self._writer.wait()
