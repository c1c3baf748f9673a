"""What becomes of steps that met NaN or Inf: skipped; after three in a row the run goes back to its checkpoint without them."""

from __future__ import annotations

import sys
from dataclasses import replace

from collagan_dist.distributed.engine import NotFinite
from collagan_dist.distributed.group import Group
from collagan_dist.errors import NumericError, on_all_ranks
from collagan_dist.models.networks import Networks
from collagan_dist.runs.run_folder import Progress

_IN_A_ROW = 3
_ROLLBACKS = 3


class Diverged(Exception):
    """Steps in a row were not finite: `steps` are their numbers."""

    def __init__(self, steps: list[int]) -> None:
        super().__init__(steps)
        self.steps = steps


class Guard:
    """Counts what was not finite. All ranks count the same, since NotFinite is raised by all or none."""

    def __init__(self, group: Group) -> None:
        self.group, self.rollbacks = group, 0
        self._spell: list[int] = []
        self._left_out: set[int] = set()

    def finite_step(self) -> None:
        self._spell.clear()

    def nonfinite_step(self, number: int, error: NotFinite) -> None:
        """Step `number` was skipped. Raises Diverged when it is one too many; an overflow of fp16 mends itself."""
        if not error.overflow:
            self._spell.append(number)
        if len(self._spell) == _IN_A_ROW:
            raise Diverged(list(self._spell))

    def check(self, networks: Networks, number: int) -> None:
        """Raises Diverged, on all ranks, rather than let a value that is no number be saved. Collective."""
        if not self.group.all_reduce_and(networks.finite()):
            raise Diverged([*self._spell, number])

    def roll_back(self, error: Diverged) -> None:
        """Raises NumericError when the run went back often enough."""
        self._spell.clear()
        self._left_out |= set(error.steps)
        if self.rollbacks == _ROLLBACKS:
            raise on_all_ranks(
                NumericError(
                    f"steps {error.steps[0]} to {error.steps[-1]}: NaN or Inf again, after {_ROLLBACKS} returns to the last good checkpoint; "
                    "nothing of it was saved. Lower optim.generator.lr or the loss weights, set optim.generator.clip, or use fp32 or bf16, "
                    "then run the same command"
                )
            )
        self.rollbacks += 1
        if self.group.world.is_rank0:
            text = f"steps {error.steps[0]} to {error.steps[-1]} met NaN or Inf: back to the last good checkpoint, without their batches"
            print(f"warning: {text}", file=sys.stderr, flush=True)

    def with_skipped(self, progress: Progress) -> Progress:
        """The progress, with the batches that this start found to be bad left out."""
        return replace(progress, skipped=sorted({*progress.skipped, *self._left_out}))
