"""NaN where a test wants it: in the loss of an update, at chosen steps of chosen ranks. Run under torchrun it trains a run folder."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collagan_dist.config.load import load_config
from collagan_dist.distributed.update import Update
from collagan_dist.distributed.world import detect_world
from collagan_dist.models.step import Step, StepResult
from collagan_dist.training.loop import train
from collagan_dist.types import Batch

# (rank, step, side).
Where = Callable[[int, int, str], bool]


@contextmanager
def nan_where(bad: Where) -> Iterator[list[tuple[int, str]]]:
    """Inside, an update's loss is NaN where `bad(rank, step, side)`; the list fills with the (step, side) of every update."""
    step, backward = Step.__call__, Update.backward
    done: list[tuple[int, str]] = []
    now = [0]

    def step_at(self: Step, batch: Batch, number: int) -> StepResult:
        now[0] = number
        return step(self, batch, number)

    def backward_at(self: Update, losses: Any, values: Any = None) -> None:
        done.append((now[0], self.side))
        if bad(self.engine.group.world.rank, now[0], self.side):
            losses = [loss * float("nan") for loss in losses]
        backward(self, losses, values)

    Step.__call__, Update.backward = step_at, backward_at  # type: ignore[method-assign]
    try:
        yield done
    finally:
        Step.__call__, Update.backward = step, backward  # type: ignore[method-assign]


def main(config: str, run: str, rank: str, first: str, last: str, side: str) -> None:
    """NaN on one rank in the steps first..last."""
    with nan_where(lambda r, step, s: r == int(rank) and int(first) <= step <= int(last) and s == side):
        train(load_config(config), Path(run), detect_world())


if __name__ == "__main__":
    main(*sys.argv[1:])
