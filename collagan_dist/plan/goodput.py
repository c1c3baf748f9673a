"""How much of a run's time is training, where nodes fail: checkpoints, lost steps, restarts.

Failures come at random, independently, at a constant rate (an exponential distribution). Between them a run trains, saves every
interval, and after each failure starts again from its newest checkpoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Failures:
    """What interrupts a job, in seconds.

    mtbf      Mean time between failures of the whole job.
    restart   From a failure to the first new step.
    blocked   For which training waits at a checkpoint while it is copied.
    written   From then until it counts. The next one waits for that.
    """

    mtbf: float
    restart: float
    blocked: float
    written: float = 0.0


def goodput(interval: float, failures: Failures) -> float:
    """Return the share of time that is new steps, with a checkpoint after each `interval` seconds of training.

    A segment s of training and its checkpoint takes (M + R)(exp(s / M) - 1) seconds on average (as Daly 2006, eq. 13). A failure begins
    it anew after a restart R, in which nothing fails. A checkpoint that is still being written is lost with its steps. Checkpoints are
    written one at a time, so a segment is never shorter than that takes.
    """
    segment = max(interval, failures.written) + failures.blocked
    # A failure in the first `written` seconds after a save also loses the segment before it.
    lost_again = min(1.0, failures.written / failures.mtbf) * segment
    try:
        elapsed = (failures.mtbf + failures.restart) * math.expm1(segment / failures.mtbf) + lost_again
    except OverflowError:
        return 0.0
    return interval / elapsed


def best_interval(failures: Failures) -> float:
    """Return about the best seconds between checkpoints (Daly 2006 eq. 37, whose first term is Young's 1974).

    At least those in which one is written: training would only wait.
    """
    ratio = failures.blocked / (2 * failures.mtbf)
    if ratio >= 1:
        return max(failures.mtbf, failures.written)
    young = math.sqrt(2 * failures.blocked * failures.mtbf)
    return max(young * (1 + math.sqrt(ratio) / 3 + ratio / 9) - failures.blocked, failures.written)
