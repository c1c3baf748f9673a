"""Checks of the way between ranks. All collective; rank 0 has the findings."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import torch

from collagan_dist.distributed import network_benchmark
from collagan_dist.distributed.group import Group
from collagan_dist.doctor.finding import Finding, failed, ok, warning

_SLOW_TRIP = 0.01  # seconds there and back
_CLOCKS = 1.0  # seconds that clocks may differ by: logs and modification times are compared over nodes


def reductions(group: Group) -> Iterator[Finding]:
    cpu = torch.device("cpu")
    for device in [cpu] + [group.device] * (group.device != cpu):
        name = f"all-reduce ({device.type})"
        right = group.all_gather(network_benchmark.all_reduce_is_correct(group, device))
        seconds = network_benchmark.all_reduce_seconds(group, device)
        if not all(right):
            ranks = ", ".join(str(rank) for rank, good in enumerate(right) if not good)
            yield failed(name, f"the sum is wrong on ranks {ranks}", "leave out their nodes and have them looked at")
        else:
            figures = ", ".join(f"{_size(n)} in {1000 * s:.2f} ms ({n / s / 1e6:.0f} MB/s)" for n, s in seconds.items())
            yield ok(name, f"right; {figures}")


def ways(group: Group) -> Iterator[Finding]:
    """Messages there and back between hosts, and what their clocks differ by."""
    hosts = group.all_gather(socket.gethostname())
    trips = network_benchmark.round_trips(group, hosts)
    (a, b), (longest, _) = max(trips.items(), key=lambda trip: trip[1][0])
    where = f"{hosts[a]} and {hosts[b]}" if hosts[a] != hosts[b] else f"ranks {a} and {b} of {hosts[a]}"
    text = f"longest way there and back {1000 * longest:.2f} ms, between {where} ({len(trips)} tried)"
    if longest > _SLOW_TRIP:
        yield warning("latency", text, "are these nodes in one network, and is GLOO_SOCKET_IFNAME the quick one?")
    else:
        yield ok("latency", text)
    (a, b), (trip, away) = max(trips.items(), key=lambda trip: abs(trip[1][1]))
    text = f"{hosts[b]} is {away:+.3f} s from {hosts[a]} at most"
    if abs(away) - trip > _CLOCKS:
        yield warning("clocks", text, "start a time service (chrony) on both")
    else:
        yield ok("clocks", text)


def _size(size: int) -> str:
    return f"{size >> 20} MB" if size >= 1 << 20 else f"{size >> 10} kB"
