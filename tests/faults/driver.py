"""`python -m tests.faults.driver FAULT RANK NUMBER ARGS...`: `collagan ARGS` with a fault in one rank's code."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from collagan_dist.commands.main import main
from collagan_dist.data.loading.loader import Loader
from collagan_dist.models.step import Step


def stuck_for_ever(*_: Any) -> None:
    while True:
        time.sleep(1)


def fails(*_: Any) -> None:
    raise ValueError("a fault of this rank's own")


def stops(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def at_step(fault: Callable[..., None], when: int) -> None:
    """Let the fault happen before step `when`."""
    updates = Step.updates

    def faulty(self: Step, parts: Any, number: int) -> Any:
        if number == when:
            fault()
        return updates(self, parts, number)

    Step.updates = faulty  # type: ignore[method-assign]


def slow_data(milliseconds: int) -> None:
    """Delay every batch."""
    batches = Loader.batches

    def late(self: Loader, *args: Any, **named: Any) -> Iterator[Any]:
        for batch in batches(self, *args, **named):
            time.sleep(milliseconds / 1000)
            yield batch

    Loader.batches = late  # type: ignore[method-assign]


FAULTS: dict[str, Callable[[int], None]] = {
    "hang": lambda step: at_step(stuck_for_ever, step),
    "fail": lambda step: at_step(fails, step),
    "stop": lambda step: at_step(stops, step),
    "slow": slow_data,
}

if __name__ == "__main__":
    fault, rank, number, *args = sys.argv[1:]
    if os.environ["RANK"] == rank:
        FAULTS[fault](int(number))
    main(args)
