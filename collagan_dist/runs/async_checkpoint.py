"""Asynchronous checkpoints: tensors are copied to CPU memory in the step, a thread writes them during the following steps."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import torch

from collagan_dist.distributed.group import Group
from collagan_dist.errors import CheckpointError
from collagan_dist.runs import checkpoint
from collagan_dist.runs.checkpoint import WriteFailed
from collagan_dist.runs.layout import checkpoint_steps
from collagan_dist.runs.lease import Lease

logger = logging.getLogger(__name__)

Tensors = Mapping[str, torch.Tensor]
# log_event(step, name, **facts) writes an event line of metrics.jsonl.
LogEvent = Callable[..., None]


class Checkpointable(Protocol):
    """What a checkpoint saves and restores: tensors by file, then by name."""

    def tensors(self) -> Mapping[str, Tensors]:
        """Return all tensors. Collective."""

    def restore(self, files: dict[str, dict[str, torch.Tensor]]) -> None:
        """Load what `tensors` returned. Raises CheckpointError where it does not fit."""


class HostCopy:
    """A copy of tensors in CPU memory, which is reused: fresh pages cost more time than the copying."""

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    def copy(self, tensors: Mapping[str, Tensors]) -> dict[str, dict[str, torch.Tensor]]:
        """Return contiguous copies by file and name, valid until the next call. Waits for the device once."""
        # What is not asked for again is freed.
        former, self._buffers = self._buffers, {}
        copies: dict[str, dict[str, torch.Tensor]] = {}
        devices: set[torch.device] = set()
        for file, content in tensors.items():
            copies[file] = {}
            for name, tensor in content.items():
                source = tensor.detach()
                target = _buffer(former.pop(f"{file}/{name}", None), source)
                # copy_ writes the target's plain layout, whatever the source's (channels_last).
                target.copy_(source, non_blocking=True)
                self._buffers[f"{file}/{name}"] = copies[file][name] = target
                if source.is_cuda:
                    devices.add(source.device)
        for device in devices:
            torch.cuda.synchronize(device)
        return copies


def _buffer(former: torch.Tensor | None, source: torch.Tensor) -> torch.Tensor:
    if former is not None and former.shape == source.shape and former.dtype == source.dtype:
        return former
    # Only into pinned memory does a GPU copy by itself, all tensors at once.
    return torch.empty(source.shape, dtype=source.dtype, pin_memory=source.is_cuda)


class AsyncCheckpointer:
    """Writes the checkpoints of one start, one at a time, on rank 0.

    The other ranks learn the outcome of a write when all ranks meet at the next one. `blocked_seconds` adds up how
    long training waited.
    """

    def __init__(self, folder: Path, group: Group, keep: int, max_failures: int) -> None:
        self.folder, self.group, self.keep, self.max_failures = folder, group, keep, max_failures
        self.blocked_seconds = 0.0
        self.after_commit: Callable[[], None] = lambda: None  # called by the writing thread; it must return at once
        self._host_copy = HostCopy()
        # The interpreter waits for an executor's thread before it exits, so a write is never cut off.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._write: tuple[int, Future[None]] | None = None  # step and outcome
        self._failures = 0

    def save(
        self, networks: Checkpointable, step: int, state: Callable[[], Mapping[str, Any]], lease: Lease | None,
        log_event: LogEvent,
    ) -> None:  # fmt: skip
        """Copy the tensors and start to write them, after the write before. Collective.

        Raises CheckpointError, on all ranks, when max_failures writes in a row have failed.
        """
        began = time.perf_counter()
        self.wait(log_event)
        # Collective: with DeepSpeed each rank holds a part of the optimizer's state.
        tensors = networks.tensors()
        self.group.on_rank0(lambda: self._start(tensors, step, state(), lease))
        self.blocked_seconds += time.perf_counter() - began

    def _start(self, tensors: Mapping[str, Tensors], step: int, state: Mapping[str, Any], lease: Lease | None) -> None:
        assert lease is not None
        with suppress(OSError):  # an outage of the storage costs a checkpoint, not the run; the write will report it
            lease.check()
        copies = self._host_copy.copy(tensors)

        def write() -> None:
            try:
                checkpoint.save(self.folder, step, copies, state, self.keep, lease)
            except WriteFailed as error:
                with suppress(OSError):
                    lease.check()  # a newer start removes unfinished folders: then the disk is not at fault
                logger.warning("warning: %s", error)
                raise
            self.after_commit()

        self._write = step, self._executor.submit(write)

    def wait(self, log_event: LogEvent, required: bool = False) -> None:
        """Wait until the last checkpoint is on disk. Collective.

        Raises CheckpointError, on all ranks, after max_failures failures in a row, or after one if it is `required`.
        """
        self.group.wait_on_rank0(self._write[1] if self._write else None)
        self.group.on_rank0(lambda: self._handle_outcome(log_event, required))

    def _handle_outcome(self, log_event: LogEvent, required: bool) -> None:
        if self._write is None:
            return
        step, outcome = self._write
        self._write = None
        error = outcome.exception()
        if error is None:
            self._failures = 0
            return
        if not isinstance(error, WriteFailed):
            raise error
        self._failures += 1
        log_event(step, "checkpoint_failed", reason=str(error), needed=error.needed, free=error.free)
        if required or self._failures >= self.max_failures:
            steps = checkpoint_steps(self.folder)
            newest = f"the newest checkpoint is step {steps[-1]}" if steps else "there is no checkpoint yet"
            in_a_row = f" {self._failures} in a row could not be written." if self._failures > 1 else ""
            hint = "make room, then run the same command"
            raise CheckpointError(f"{error}.{in_a_row} Step {step} is not saved, {newest}; {hint}")

    def close(self) -> None:
        """Let the write in progress finish. Not collective: other ranks may be gone."""
        self._executor.shutdown()
