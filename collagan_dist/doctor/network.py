"""Checks of the network between ranks. All are collective; rank 0 has the findings."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import torch

from collagan_dist.distributed import network_benchmark
from collagan_dist.distributed.group import Group
from collagan_dist.doctor.finding import Finding, failed, ok, warning

_SLOW_ROUND_TRIP_SECONDS = 0.01
# Logs and modification times are compared between nodes.
_MAX_CLOCK_DIFFERENCE_SECONDS = 1.0


def check_all_reduce(group: Group) -> Iterator[Finding]:
    cpu = torch.device("cpu")
    # Both backends are used in training: gloo for numbers and objects, NCCL for gradients.
    for device in [cpu] + [group.device] * (group.device != cpu):
        name = f"all-reduce ({device.type})"
        correct = group.all_gather(network_benchmark.all_reduce_is_correct(group, device))
        seconds = network_benchmark.all_reduce_seconds(group, device)
        if not all(correct):
            ranks = ", ".join(str(rank) for rank, good in enumerate(correct) if not good)
            yield failed(name, f"the sum is wrong on ranks {ranks}", "leave out their nodes and have them checked")
        else:
            speeds = ", ".join(f"{_size(n)} in {1000 * s:.2f} ms ({n / s / 1e6:.0f} MB/s)" for n, s in seconds.items())
            yield ok(name, f"right; {speeds}")


def check_round_trips(group: Group) -> Iterator[Finding]:
    """Check latency and clocks between hosts."""
    hosts = group.all_gather(socket.gethostname())
    trips = network_benchmark.round_trips(group, hosts)
    (a, b), (longest, _) = max(trips.items(), key=lambda trip: trip[1][0])
    where = f"{hosts[a]} and {hosts[b]}" if hosts[a] != hosts[b] else f"ranks {a} and {b} of {hosts[a]}"
    text = f"longest round trip {1000 * longest:.2f} ms, between {where} ({len(trips)} measured)"
    if longest > _SLOW_ROUND_TRIP_SECONDS:
        yield warning("latency", text, "are these nodes in one network, and is GLOO_SOCKET_IFNAME the fast one?")
    else:
        yield ok("latency", text)
    (a, b), (trip, difference) = max(trips.items(), key=lambda trip: abs(trip[1][1]))
    text = f"{hosts[b]} is {difference:+.3f} s from {hosts[a]} at most"
    # A difference is known no better than the round trip in which it was measured.
    if abs(difference) - trip > _MAX_CLOCK_DIFFERENCE_SECONDS:
        yield warning("clocks", text, "start a time service (chrony) on both")
    else:
        yield ok("clocks", text)


def _size(size: int) -> str:
    return f"{size >> 20} MB" if size >= 1 << 20 else f"{size >> 10} kB"
