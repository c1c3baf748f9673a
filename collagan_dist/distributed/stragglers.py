"""Finds stragglers: ranks whose own work in a step takes much longer than that of the others."""

from __future__ import annotations

import socket
import statistics
from dataclasses import dataclass

from collagan_dist.distributed.group import Group

_MIN_SLOW_INTERVALS = 3  # in a row: one slow picture or one checkpoint does not make a straggler
_MIN_EXCESS_SECONDS = 0.005  # per step; less is noise


@dataclass(frozen=True)
class Straggler:
    """A rank whose own work takes `seconds` per step, the others' median being `median`."""

    rank: int
    host: str
    seconds: float
    median: float

    def __str__(self) -> str:
        return (
            f"rank {self.rank} on {self.host} is a straggler: its own work in a step takes {self.seconds * 1000:.0f} ms, "
            f"the others' median is {self.median * 1000:.0f} ms"
        )


class SlowStreaks:
    """Counts, for each rank, the log intervals in a row in which it was slower than `factor` times the others' median."""

    def __init__(self, ranks: int, factor: float) -> None:
        self.factor, self.lengths = factor, [0] * ranks

    def add(self, seconds: list[float]) -> list[tuple[int, float]]:
        """Add one interval, given every rank's seconds per step.

        Return the ranks whose streak has just become long enough, each with the others' median.
        """
        # The rank itself is left out: of two ranks, a median with the slow one in it would rise with it.
        medians = [statistics.median(seconds[:rank] + seconds[rank + 1 :]) for rank in range(len(seconds))]
        for rank, (own, median) in enumerate(zip(seconds, medians, strict=True)):
            slow = own > median * self.factor and own - median > _MIN_EXCESS_SECONDS
            self.lengths[rank] = self.lengths[rank] + 1 if slow else 0
        # Equal, not at least: each streak is reported once.
        return [(rank, medians[rank]) for rank, length in enumerate(self.lengths) if length == _MIN_SLOW_INTERVALS]


class StragglerDetector:
    """Compares the ranks' own times. All ranks compute the same result from the same numbers. `factor` 0 switches it off."""

    def __init__(self, group: Group, factor: float) -> None:
        self.group, self.factor = group, factor
        self._streaks = SlowStreaks(group.world.size, factor)

    def check(self) -> list[Straggler]:
        """Return new stragglers of the interval that ends now. Collective."""
        # Read in any case, so that the next interval starts here.
        own = self.group.stopwatch.pop_mean_seconds()
        if self.group.world.size == 1 or not self.factor:
            return []
        seconds = self.group.all_gather_float(own)
        found = self._streaks.add(seconds)
        # All ranks have the same `found`, so all of them or none take part in this collective.
        hosts = self.group.all_gather(socket.gethostname()) if found else []
        return [Straggler(rank, hosts[rank], seconds[rank], median) for rank, median in found]
