"""What a rank is doing right now: written by its main thread, read by the threads of the hang detector."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class RankStatus:
    """One rank's step and what it waits for.

    step      None until the first training step.
    log_dir   Where stacks are written when ranks hang; None: to stderr.
    waiting   The collective that the main thread is in and since when (time.monotonic); None in its own work.
    """

    # At the start ranks may be far apart, so the detector waits longer while it is None.
    step: int | None = None
    log_dir: Path | None = None
    # One attribute, so that a reader in another thread never pairs one collective's name with another's time.
    waiting: tuple[str, float] | None = None

    @property
    def position(self) -> str:
        """The step, for messages."""
        return "the start" if self.step is None else f"step {self.step}"

    @property
    def collective(self) -> str:
        """The collective that is waited in, for messages."""
        return self.waiting[0] if self.waiting else "a collective"

    @contextmanager
    def waiting_in(self, what: str) -> Iterator[None]:
        """Mark this rank as waiting for the others in the collective `what`."""
        # Collectives nest: batch normalization waits inside DDP's forward pass.
        outer, self.waiting = self.waiting, (what, time.monotonic())
        try:
            yield
        finally:
            self.waiting = outer
