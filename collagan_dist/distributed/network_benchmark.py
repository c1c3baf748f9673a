"""Measurements of the network between ranks: correctness and speed of all-reduces, round trips, clock differences."""

from __future__ import annotations

import time
from itertools import combinations

import torch
import torch.distributed as dist

from collagan_dist.distributed.group import Group

_SIZES_BYTES = (4 << 10, 1 << 20, 16 << 20)
_REPEATS = 3
_ROUND_TRIPS = 10
_MAX_HOSTS_ALL_PAIRS = 8  # with more hosts only pairs with the first one are measured


def all_reduce_is_correct(group: Group, device: torch.device) -> bool:
    """Return whether this rank gets the right sum over ranks. Collective."""
    values = torch.arange(1000, dtype=torch.float64, device=device) + group.world.rank
    with group.collective("a sum to check"):
        dist.all_reduce(values)
    size = group.world.size
    # Whole numbers in float64 add up exactly, in any order.
    expected = size * torch.arange(1000, dtype=torch.float64) + size * (size - 1) / 2
    return torch.equal(values.cpu(), expected)


def all_reduce_seconds(group: Group, device: torch.device) -> dict[int, float]:
    """Return the shortest of a few all-reduces, by size in bytes. Collective."""
    shortest = {}
    for size in _SIZES_BYTES:
        values, seconds = torch.ones(size // 4, device=device), []
        for _ in range(_REPEATS + 1):
            with group.collective("an all-reduce to time"):
                # Without a barrier the time would contain the wait for the slowest rank.
                dist.barrier()
                begin = time.perf_counter()
                dist.all_reduce(values)
                values.sum().item()  # waits for the device
                seconds.append(time.perf_counter() - begin)
            values.fill_(1.0)
        shortest[size] = min(seconds[1:])  # the first one opens connections
    return shortest


def round_trips(group: Group, hosts: list[str]) -> dict[tuple[int, int], tuple[float, float]]:
    """Measure messages between hosts, `hosts` being the host of each rank. Collective.

    Return, on every rank, (round trip, second clock minus first clock) by pair of ranks, in seconds. A pair is the first
    ranks of two hosts, or ranks 0 and 1 of a single host.
    """
    first = [hosts.index(host) for host in dict.fromkeys(hosts)]
    ends = first if len(first) > 1 else [0, 1]
    pairs = [pair for pair in combinations(ends, 2) if len(ends) <= _MAX_HOSTS_ALL_PAIRS or pair[0] == ends[0]]
    # All ranks walk the pairs in one order, so each rank has one partner at a time and none waits for ever.
    own = {pair: _ping(group, *pair) for pair in pairs if group.world.rank in pair}
    gathered = group.all_gather([(pair, result) for pair, result in own.items() if pair[0] == group.world.rank])
    return {(a, b): (trip, difference) for part in gathered for (a, b), (trip, difference) in part}


def _ping(group: Group, first: int, second: int) -> tuple[float, float]:
    """Return the shortest of some round trips and the clock difference seen in it. Both ranks call it; `first` measures."""
    message, best = torch.zeros(1, dtype=torch.float64), (float("inf"), 0.0)
    for _ in range(_ROUND_TRIPS):
        with group.collective("a message"):
            if group.world.rank == second:
                dist.recv(message, first)
                dist.send(torch.tensor([time.time()], dtype=torch.float64), first)
                continue
            begin = time.time()
            dist.send(message, second)
            dist.recv(message, second)
            seconds = time.time() - begin
        # As in NTP: the other clock was read halfway, and the shortest trip bounds the error best.
        best = min(best, (seconds, message.item() - (begin + seconds / 2)), key=lambda ping: ping[0])
    return best
