"""Counts steps that were not finite: each is skipped, and after three in a row the run rolls back to its newest checkpoint."""

from __future__ import annotations

import logging
from dataclasses import replace

from collagan_dist.distributed.group import Group
from collagan_dist.distributed.update import Verdict
from collagan_dist.errors import NumericError, mark_on_all_ranks
from collagan_dist.models.networks import Networks
from collagan_dist.runs.run_folder import Progress

logger = logging.getLogger(__name__)

_MAX_NONFINITE_IN_A_ROW = 3
_MAX_ROLLBACKS = 3  # per start


class Diverged(Exception):
    """Steps in a row were not finite; `steps` are their numbers."""

    def __init__(self, steps: list[int]) -> None:
        super().__init__(steps)
        self.steps = steps


class Guard:
    """Decides on rollbacks. Every rank counts for itself: all have the same verdicts, so all decide alike."""

    def __init__(self, group: Group) -> None:
        self.group, self.rollbacks = group, 0
        self._in_a_row: list[int] = []
        self._left_out: set[int] = set()

    @property
    def bad_row(self) -> list[int]:
        """The steps that were skipped in a row up to now, which a checkpoint keeps."""
        return list(self._in_a_row)

    def count_finite(self) -> None:
        """End a row of steps that were not finite."""
        self._in_a_row.clear()

    def count_nonfinite(self, step: int, verdict: Verdict) -> None:
        """Count a skipped step. Raises Diverged when the row is too long."""
        # An overflow of fp16 is no sign of divergence: the loss scale finds its size by overflows.
        if not verdict.overflow:
            self._in_a_row.append(step)
        if len(self._in_a_row) >= _MAX_NONFINITE_IN_A_ROW:
            raise Diverged(self.bad_row)

    def check_parameters(self, networks: Networks, step: int) -> None:
        """Raise Diverged, on all ranks, if a parameter or another saved tensor is not finite. Collective."""
        # A finite gradient can lead to one, by a step that float32 cannot hold. It must not reach a checkpoint.
        what = "whether all parameters are finite"
        finite = self.group.all_reduce_and(networks.finite(), what)
        with self.group.collective(what):  # the device may still be in the exchange
            is_finite = bool(finite)
        if not is_finite:
            raise Diverged([*self.bad_row, step])

    def roll_back(self, error: Diverged) -> None:
        """Note the steps to leave out from now on. Raises NumericError after too many rollbacks."""
        self._in_a_row.clear()
        # Their batches may be the cause. The same step would meet the same batch again, since the order is fixed.
        self._left_out |= set(error.steps)
        # Logs and events count steps from 1, positions in the data from 0.
        first, last = error.steps[0] + 1, error.steps[-1] + 1
        steps = f"step {first}" if first == last else f"steps {first} to {last}"
        if self.rollbacks == _MAX_ROLLBACKS:
            raise mark_on_all_ranks(
                NumericError(
                    f"{steps}: NaN or Inf again, after {_MAX_ROLLBACKS} returns to the last good checkpoint; "
                    "nothing of it was saved. Lower optim.generator.lr or the loss weights, set optim.generator.clip, or use fp32 or bf16, "
                    "then run the same command; "
                    "with --out, keys of optim and loss need --allow-config-change"
                )
            )
        self.rollbacks += 1
        if self.group.world.is_rank0:
            logger.warning("warning: %s met NaN or Inf: back to the last good checkpoint, without their batches", steps)

    def resume(self, progress: Progress) -> Progress:
        """Go on from a checkpoint; return its progress with the steps to leave out added."""
        # A row across an interruption rolls back at the same step as without one. After a rollback a new row begins.
        if not self.rollbacks:
            self._in_a_row = list(progress.bad_row)
        return replace(progress, left_out=sorted({*progress.left_out, *self._left_out}))
