"""Ranks that keep the others waiting: named when they do so for long."""

from __future__ import annotations

import socket
import statistics
from dataclasses import dataclass

from collagan_dist.distributed.group import Group

_LINES = 3  # in a row: a slow picture or a checkpoint of one rank is nobody's fault
_LEAST = 0.005  # seconds a step; less is noise


@dataclass(frozen=True)
class Straggler:
    """A rank whose own share of a step takes `seconds` where the others' median is `median`."""

    rank: int
    host: str
    seconds: float
    median: float

    def __str__(self) -> str:
        return (
            f"rank {self.rank} on {self.host} keeps the others waiting: its own share of a step takes {self.seconds * 1000:.0f} ms, "
            f"the others' median is {self.median * 1000:.0f} ms"
        )


class SlowStreaks:
    """Which ranks have been slower than `factor` times the others' median for how many lines."""

    def __init__(self, ranks: int, factor: float) -> None:
        self.factor, self.lines = factor, [0] * ranks

    def add(self, seconds: list[float]) -> list[tuple[int, float]]:
        """A line: every rank's seconds a step. Those whose spell is long enough just now, with the others' median."""
        medians = [statistics.median(seconds[:rank] + seconds[rank + 1 :]) for rank in range(len(seconds))]
        for rank, (own, median) in enumerate(zip(seconds, medians, strict=True)):
            slow = own > median * self.factor and own - median > _LEAST
            self.lines[rank] = self.lines[rank] + 1 if slow else 0
        return [(rank, medians[rank]) for rank, lines in enumerate(self.lines) if lines == _LINES]


class StragglerDetector:
    """Compares the ranks' own times of a line. All ranks see the same numbers, so all find the same."""

    def __init__(self, group: Group, factor: float) -> None:
        """A factor of 0: nobody is looked for."""
        self.group, self.factor = group, factor
        self._spells = SlowStreaks(group.world.size, factor)

    def check(self) -> list[Straggler]:
        """Those whose spell has become long enough with this line; each once a spell. Collective."""
        mine = self.group.stopwatch.pop_mean_seconds()
        if self.group.world.size == 1 or not self.factor:
            return []
        seconds = self.group.all_gather_float(mine)
        found = self._spells.add(seconds)
        hosts = self.group.all_gather(socket.gethostname()) if found else []
        return [Straggler(rank, hosts[rank], seconds[rank], median) for rank, median in found]
