"""Checks of what runs jobs here: names, Slurm, Ray."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from collagan_dist.distributed import addresses, versions
from collagan_dist.distributed.world import rendezvous_address
from collagan_dist.doctor.finding import Finding, ok, warning
from collagan_dist.types import World


def names(world: World) -> Iterator[Finding]:
    """What this host's own name and the meeting place's mean here."""
    host = socket.gethostname()
    own = addresses.resolve(host)
    text = f"{host} does not know its own name" if own is None else f"this host is {host}, {own}"
    lost = (own is None or addresses.is_loopback(own)) and world.size > world.local_size
    if world.size > 1:
        master, port = rendezvous_address()
        text += f"; ranks meet at {master} ({addresses.resolve(master) or 'unknown here'}) port {port}"
    told = os.environ.get("GLOO_SOCKET_IFNAME")
    text += f"; GLOO_SOCKET_IFNAME is {told}" if told else ""
    if lost and not told:
        yield warning(
            "names",
            f"{text}, which other nodes cannot use; collagan looks for the interface that leads to them",
            "set GLOO_SOCKET_IFNAME where it picks a wrong one",
        )
    else:
        yield ok("names", text)


def slurm() -> Iterator[Finding]:
    if shutil.which("srun") is None:
        yield ok("slurm", "not installed")
        return
    version = _said("srun", "--version")
    if version is None:
        yield ok("slurm", "installed, but not configured here")
        return
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        yield ok("slurm", f"{version}, outside a job")
        return
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST", "?")
    left = _said("squeue", "-h", "-j", job, "-o", "%L") if shutil.which("squeue") else None
    text = f"{version}, job {job} on {nodes}"
    if left is None:
        yield warning(
            "slurm",
            f"{text}; squeue does not answer from here",
            "slurmctld must be reachable for a job to requeue itself",
        )
    else:
        yield ok("slurm", f"{text}, {left} left")


def ray() -> Iterator[Finding]:
    version, mode = versions.library_version("ray"), os.environ.get("RAY_AUTH_MODE")
    if version is None:
        yield ok("ray", "not installed")
    elif mode == "disabled" or (mode != "token" and _uses_ray()):
        yield warning("ray", f"{version}, RAY_AUTH_MODE is {mode or 'not set'}: a Ray cluster takes orders from anybody who reaches it",
                      "export RAY_AUTH_MODE=token before `ray start`")  # fmt: skip
    else:
        yield ok("ray", f"{version}, {'RAY_AUTH_MODE=token' if mode else 'no cluster in use'}")


def _uses_ray() -> bool:
    return "RAY_ADDRESS" in os.environ or Path("/tmp/ray/ray_current_cluster").exists()


def _said(*command: str) -> str | None:
    """The first line that a command prints, or None when it fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip().split("\n")[0] if done.returncode == 0 else None
