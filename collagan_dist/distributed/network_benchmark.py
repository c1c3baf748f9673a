"""What the way between ranks is worth: all-reduces that are right and fast, messages there and back, clocks."""

from __future__ import annotations

import time
from itertools import combinations

import torch
import torch.distributed as dist

from collagan_dist.distributed.group import Group

_SIZES = (4 << 10, 1 << 20, 16 << 20)  # bytes
_REPEATS = 3
_ROUND_TRIPS = 10
_ALL_PAIRS_UP_TO = 8  # hosts; of more, only those with the first


def all_reduce_is_right(group: Group, device: torch.device) -> bool:
    """Whether a sum over ranks is what arithmetic says, on this rank. Collective."""
    values = torch.arange(1000, dtype=torch.float64, device=device) + group.world.rank
    with group.collective("a sum to check"):
        dist.all_reduce(values)
    size = group.world.size
    expected = size * torch.arange(1000, dtype=torch.float64) + size * (size - 1) / 2
    return torch.equal(values.cpu(), expected)


def all_reduce_seconds(group: Group, device: torch.device) -> dict[int, float]:
    """The quickest of a few all-reduces, by size in bytes. Collective."""
    quickest = {}
    for size in _SIZES:
        values, seconds = torch.ones(size // 4, device=device), []
        for _ in range(_REPEATS + 1):
            with group.collective("an all-reduce to time"):
                dist.barrier()
                begin = time.perf_counter()
                dist.all_reduce(values)
                values.sum().item()  # waits for the device
                seconds.append(time.perf_counter() - begin)
            values.fill_(1.0)
        quickest[size] = min(seconds[1:])  # the first one connects
    return quickest


def round_trips(group: Group, hosts: list[str]) -> dict[tuple[int, int], tuple[float, float]]:
    """(seconds there and back, clock of the second minus clock of the first in seconds) between the first ranks of hosts,
    by pair of ranks; of one host, between ranks 0 and 1. Collective; the whole answer on every rank.
    """
    first = [hosts.index(host) for host in dict.fromkeys(hosts)]
    ends = first if len(first) > 1 else [0, 1]
    pairs = [pair for pair in combinations(ends, 2) if len(ends) <= _ALL_PAIRS_UP_TO or pair[0] == ends[0]]
    own = {}
    for pair in pairs:
        if group.world.rank in pair:
            own[pair] = _ping(group, *pair)
    gathered = group.all_gather({pair: answer for pair, answer in own.items() if pair[0] == group.world.rank})
    return {pair: answer for part in gathered for pair, answer in part.items()}


def _ping(group: Group, first: int, second: int) -> tuple[float, float]:
    """The quickest of some messages there and back, and what the clocks differ by then. Both ranks call it."""
    word, best = torch.zeros(1, dtype=torch.float64), (float("inf"), 0.0)
    for _ in range(_ROUND_TRIPS):
        with group.collective("a message"):
            if group.world.rank == second:
                dist.recv(word, first)
                dist.send(torch.tensor([time.time()], dtype=torch.float64), first)
                continue
            begin = time.time()
            dist.send(word, second)
            dist.recv(word, second)
            seconds = time.time() - begin
        best = min(best, (seconds, word.item() - (begin + seconds / 2)), key=lambda ping: ping[0])
    return best
