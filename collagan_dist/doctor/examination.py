"""All checks in order, and what every rank found as one report."""

from __future__ import annotations

import os
import socket
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from collagan_dist.distributed import devices
from collagan_dist.distributed.group import Group
from collagan_dist.doctor import cluster, machine, network, storage
from collagan_dist.doctor.finding import STATES, Finding, failed, ok, run
from collagan_dist.errors import ClusterError
from collagan_dist.types import World

_MEETING, _WAITING = 60, 60  # seconds
_ALIKE = ("libraries",)  # checks that must find the same everywhere
_SHOWN = 3  # different texts of one check


@dataclass(frozen=True)
class Report:
    """The findings of all ranks, one a check. `met`: whether they are all ranks'."""

    world: World
    met: bool
    findings: list[Finding]

    @property
    def sound(self) -> bool:
        return not self.failures

    @property
    def failures(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.state == "failed"]

    def as_dict(self) -> dict[str, Any]:
        return {
            "sound": self.sound,
            "host": socket.gethostname(),
            "launcher": self.world.launcher,
            "ranks": self.world.size,
            "checks": [asdict(finding) for finding in self.findings],
        }


def examine(world: World, data: str | None = None, net: bool = False) -> Report:
    """Look at this machine and, under a launcher, at all of its ranks. `net`: only at the way between them.

    `data`: a folder or URL of shards to look at, too. Every rank calls it; each has the whole report if they met.
    """
    device = devices.pick_device(world)
    found = run("names", lambda: cluster.names(world))
    if not net:
        found += _local(world, data)
    if world.size == 1:
        alone = ok("network", "one process alone; start this through srun or torchrun to look at the way between ranks")
        return Report(world, True, [*found, *([alone] if net else [])])
    try:
        group = Group(world, device, _WAITING, _MEETING)
    except ClusterError as error:
        return Report(world, False, [*found, failed("meeting", str(error))])
    try:
        together = _together(group, net)
        everybody = group.all_gather((socket.gethostname(), found + together))
    except ClusterError as error:
        return Report(world, False, [*found, failed("network", str(error))])
    finally:
        group.close()
    return Report(world, True, list(_merged(everybody)))


def _local(world: World, data: str | None) -> list[Finding]:
    """Of this rank's machine; the first rank of a machine looks at what its ranks share."""
    found = run("libraries", machine.libraries) + run("devices", machine.devices) + run("limits", machine.limits)
    if world.local_rank == 0:
        for name, check in (
            ("decoding", machine.decoding),
            ("/dev/shm", machine.shared_memory),
            ("locks", machine.locks),
        ):
            found += run(name, check)
        found += run("storage", lambda: storage.writing(Path.cwd()))
        if data is not None:
            found += run("data", lambda: storage.shards(data))
        found += run("slurm", cluster.slurm) + run("ray", cluster.ray)
    return found


def _together(group: Group, net: bool) -> list[Finding]:
    found = [] if net else list(storage.visible(Path.cwd(), group))
    found = [*network.reductions(group), *network.ways(group), *found]
    hosts = group.all_gather(socket.gethostname())
    if not group.world.is_rank0:
        return []
    way = f", over {os.environ['GLOO_SOCKET_IFNAME']}" if "GLOO_SOCKET_IFNAME" in os.environ else ""
    return [ok("meeting", f"{len(hosts)} ranks on {len(set(hosts))} host{'s' * (len(set(hosts)) > 1)}{way}"), *found]


def _merged(everybody: Sequence[tuple[str, list[Finding]]]) -> Iterator[Finding]:
    """One finding a check: of the heaviest state that any rank has, with the hosts that have it."""
    by_check: dict[str, list[tuple[str, Finding]]] = defaultdict(list)
    for host, findings in everybody:
        for finding in findings:
            by_check[finding.check].append((host, finding))
    for check, found in by_check.items():
        worst = max((finding for _, finding in found), key=lambda finding: STATES.index(finding.state))
        texts: dict[str, list[str]] = defaultdict(list)
        for host, finding in found:
            if finding.state == worst.state:
                texts[finding.text].append(host)
        if check in _ALIKE and len(texts) > 1 and worst.state != "failed":
            yield failed(
                check, f"nodes differ: {_told(texts, True)}", "give all nodes the same environment and checkout"
            )
        else:
            everywhere = len(texts) == 1 and len(found) == len(next(iter(texts.values())))
            yield Finding(check, worst.state, _told(texts, not everywhere), worst.mend)


def _told(texts: dict[str, list[str]], with_hosts: bool) -> str:
    if not with_hosts:
        return next(iter(texts))
    shown = [f"{', '.join(dict.fromkeys(hosts))}: {text}" for text, hosts in list(texts.items())[:_SHOWN]]
    return " | ".join([*shown, *([f"and {len(texts) - _SHOWN} more"] if len(texts) > _SHOWN else [])])
