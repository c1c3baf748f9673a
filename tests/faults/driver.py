"""`python -m tests.faults.driver FAULT NUMBER ARGS...`: `collagan ARGS` with a fault in this rank's code."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from collagan_dist.commands.main import main
from collagan_dist.data.loading.loader import Loader
from collagan_dist.models.step import Step


def stop_at_step(when: int) -> None:
    """Stop this process before step `when`, as a debugger or a dead machine does."""
    step = Step.__call__

    def stopping(self: Step, batch: Any, number: int) -> Any:
        if number == when:
            os.kill(os.getpid(), signal.SIGSTOP)
        return step(self, batch, number)

    Step.__call__ = stopping  # type: ignore[method-assign]


def slow_data(milliseconds: int) -> None:
    """Delay every batch."""
    batches = Loader.batches

    def late(self: Loader, *args: Any, **named: Any) -> Iterator[Any]:
        for batch in batches(self, *args, **named):
            time.sleep(milliseconds / 1000)
            yield batch

    Loader.batches = late  # type: ignore[method-assign]


FAULTS: dict[str, Callable[[int], None]] = {"stop": stop_at_step, "slow": slow_data}

if __name__ == "__main__":
    fault, number, *args = sys.argv[1:]
    FAULTS[fault](int(number))
    main(args)
