"""Runs all checks in order and merges the findings of all ranks into one report."""

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
from collagan_dist.doctor import cluster, listeners, machine, network, places, storage
from collagan_dist.doctor.finding import STATES, Check, Finding, failed, ok, run_check
from collagan_dist.errors import ClusterError
from collagan_dist.types import World

# Shorter than a training's limits: whoever calls doctor waits for its answer.
_RENDEZVOUS_SECONDS, _COLLECTIVE_SECONDS = 60, 60
_MUST_AGREE = ("libraries",)  # checks whose text must be the same on all ranks
_MAX_TEXTS = 3  # different texts shown of one check


@dataclass(frozen=True)
class DoctorReport:
    """One finding per check. `complete`: whether the findings of all ranks are in it, or only this rank's."""

    world: World
    complete: bool
    findings: list[Finding]

    @property
    def failures(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.state == "failed"]

    def as_dict(self) -> dict[str, Any]:
        return {
            "sound": not self.failures,
            "host": socket.gethostname(),
            "launcher": self.world.launcher,
            "ranks": self.world.size,
            "checks": [asdict(finding) for finding in self.findings],
        }


def run_checks(world: World, data: str | None = None, net: bool = False) -> DoctorReport:
    """Check this machine and, under a launcher, the network between all ranks. Every rank calls it.

    `data`: a folder or URL of shards to check, too. `net`: check only the network.
    """
    # First, since group operations below use the rank's own GPU.
    device = devices.pick_device(world)
    found = run_check("names", lambda: cluster.check_names(world))
    if not net:
        found += _check_machine(world, data)
    if world.size == 1:
        found += run_check("ports", listeners.check_ports)
        alone = "one process alone; start this through srun or torchrun to check the network between ranks"
        return DoctorReport(world, True, found + [ok("network", alone)] * net)
    try:
        group = Group(world, device, _COLLECTIVE_SECONDS, _RENDEZVOUS_SECONDS)
    except ClusterError as error:
        return DoctorReport(world, False, [*found, failed("meeting", str(error))])
    # A broken network is what doctor is called for: what this rank found alone is reported all the same.
    try:
        if world.local_rank == 0:  # the rendezvous is open now
            found += run_check("ports", listeners.check_ports)
        between = _check_ranks(group, net)
        said = group.all_gather((socket.gethostname(), [vars(finding) for finding in found + between]))
        everybody = [(host, [Finding(**finding) for finding in findings]) for host, findings in said]
    except ClusterError as error:
        return DoctorReport(world, False, [*found, failed("network", str(error))])
    finally:
        group.close()
    return DoctorReport(world, True, list(_merge(everybody)))


def _check_machine(world: World, data: str | None) -> list[Finding]:
    checks: list[tuple[str, Check]] = [
        ("libraries", machine.check_libraries),
        ("devices", machine.check_devices),
        ("limits", machine.check_limits),
    ]
    # What the ranks of a machine share is checked once.
    if world.local_rank == 0:
        checks += [
            ("decoding", machine.check_decoding),
            ("/dev/shm", machine.check_shared_memory),
            ("locks", machine.check_locks),
            ("home", places.check_home),
            ("temporary", places.check_temporary),
            ("storage", lambda: storage.check_writing(Path.cwd())),
        ]
        if data is not None:
            checks.append(("data", lambda: storage.check_shards(data)))
        checks += [("slurm", cluster.check_slurm), ("ray", cluster.check_ray)]
    return [finding for name, check in checks for finding in run_check(name, check)]


def _check_ranks(group: Group, net: bool) -> list[Finding]:
    """Run the collective checks. Rank 0 has the findings."""
    # All ranks run the generators to their end, although only rank 0 uses the findings: they contain collectives.
    found = [] if net else list(storage.check_shared_folder(Path.cwd(), group))
    found = [*network.check_all_reduce(group), *network.check_round_trips(group), *found]
    hosts = group.all_gather(socket.gethostname())
    if not group.world.is_rank0:
        return []
    interface, nodes = os.environ.get("GLOO_SOCKET_IFNAME"), len(set(hosts))
    over = f", over {interface}" if interface is not None else ""
    return [ok("meeting", f"{len(hosts)} ranks on {nodes} host{'s' * (nodes > 1)}{over}"), *found]


def _merge(everybody: Sequence[tuple[str, list[Finding]]]) -> Iterator[Finding]:
    """Return one finding per check: the worst state on any rank, with the hosts that have it."""
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
        if check in _MUST_AGREE and len(texts) > 1 and worst.state != "failed":
            mend = "give all nodes the same environment and checkout"
            yield failed(check, f"nodes differ: {_join_texts(texts, True)}", mend)
        else:
            # Hosts are left out where every rank that ran the check says the same.
            everywhere = len(texts) == 1 and len(found) == len(next(iter(texts.values())))
            yield Finding(check, worst.state, _join_texts(texts, not everywhere), worst.mend)


def _join_texts(texts: dict[str, list[str]], with_hosts: bool) -> str:
    if not with_hosts:
        return next(iter(texts))
    shown = [f"{', '.join(dict.fromkeys(hosts))}: {text}" for text, hosts in list(texts.items())[:_MAX_TEXTS]]
    return " | ".join([*shown, *([f"and {len(texts) - _MAX_TEXTS} more"] if len(texts) > _MAX_TEXTS else [])])
