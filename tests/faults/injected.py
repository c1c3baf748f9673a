"""NaN where a test wants it: in the loss of a phase, at chosen steps of chosen ranks. Run under torchrun it trains a run folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collagan_dist.config.load import load_config
from collagan_dist.distributed.world import detect_world
from collagan_dist.models.step import MicroBatch, Step
from collagan_dist.training.loop import train

# (rank or None for all, step, side).
Where = Callable[[int, int, str], bool]


@contextmanager
def nan_where(bad: Where) -> Iterator[list[tuple[int, str]]]:
    """Inside, a phase's loss is NaN where `bad(rank, step, side)`; the list fills with the (step, side) of every phase that ran."""
    learn, update = Step.learn, Step._update
    phases: list[tuple[int, str]] = []
    now = [0]

    def learn_at(self: Step, parts: list[MicroBatch], number: int) -> Any:
        now[0] = number
        return learn(self, parts, number)

    def update_at(self: Step, side: str, learners: Any, loss: Any, parts: list[MicroBatch], rate: float) -> Any:
        phases.append((now[0], side))

        def poisoned(part: MicroBatch) -> Any:
            losses, values = loss(part)
            if bad(self.engine.group.world.rank, now[0], side):
                losses = [one * float("nan") for one in losses]
            return losses, values

        return update(self, side, learners, poisoned, parts, rate)

    Step.learn, Step._update = learn_at, update_at  # type: ignore[method-assign]
    try:
        yield phases
    finally:
        Step.learn, Step._update = learn, update  # type: ignore[method-assign]


def main(config: str, run: str, rank: str, first: str, last: str, side: str) -> None:
    """NaN on one rank in the steps first..last."""
    with nan_where(lambda r, step, s: r == int(rank) and int(first) <= step <= int(last) and s == side):
        train(load_config(config), Path(run), detect_world())


if __name__ == "__main__":
    main(*sys.argv[1:])
