"""Checks of what runs jobs on this host: host names, Slurm, Ray."""

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

_COMMAND_TIMEOUT_SECONDS = 10


def check_names(world: World) -> Iterator[Finding]:
    """Check what the host's own name and MASTER_ADDR mean on this host."""
    host = socket.gethostname()
    own = addresses.resolve(host)
    text = f"{host} does not know its own name" if own is None else f"this host is {host}, {own}"
    # gloo announces the address of the host's own name to the other ranks.
    unreachable = (own is None or addresses.is_loopback(own)) and world.size > world.local_size
    if world.size > 1:
        master, port = rendezvous_address()
        text += f"; ranks meet at {master} ({addresses.resolve(master) or 'unknown here'}) port {port}"
    interface = os.environ.get("GLOO_SOCKET_IFNAME")
    text += f"; GLOO_SOCKET_IFNAME is {interface}" if interface else ""
    if unreachable and not interface:
        text += ", which other nodes cannot use; collagan looks for the interface that leads to them"
        yield warning("names", text, "set GLOO_SOCKET_IFNAME if it picks a wrong one")
    elif own is None and not interface:
        # torchrun asks for the name before our code runs, and tries for minutes.
        mend = f"add {host} to /etc/hosts; until then torchrun needs --rdzv-backend=c10d --rdzv-endpoint=127.0.0.1:0 --local-addr=127.0.0.1"
        yield warning("names", text, mend)
    else:
        yield ok("names", text)


def check_slurm() -> Iterator[Finding]:
    if shutil.which("srun") is None:
        yield ok("slurm", "not installed")
        return
    version = _first_output_line("srun", "--version")
    if version is None:
        yield ok("slurm", "installed, but not configured here")
        return
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        yield ok("slurm", f"{version}, outside a job")
        return
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST", "?")
    # The batch script requeues its job with scontrol, which needs the same daemon as squeue.
    left = _first_output_line("squeue", "-h", "-j", job, "-o", "%L") if shutil.which("squeue") else None
    text = f"{version}, job {job} on {nodes}"
    if left is None:
        mend = "slurmctld must be reachable for a job to requeue itself"
        yield warning("slurm", f"{text}; squeue does not answer from here", mend)
    else:
        yield ok("slurm", f"{text}, {left} left")


def check_ray() -> Iterator[Finding]:
    version, mode = versions.library_version("ray"), os.environ.get("RAY_AUTH_MODE")
    if version is None:
        yield ok("ray", "not installed")
    # Without a token whoever reaches Ray's ports may run code on all nodes.
    elif mode == "disabled" or (mode != "token" and _ray_is_in_use()):
        text = f"{version}, RAY_AUTH_MODE is {mode or 'not set'}: a Ray cluster runs code for anybody who reaches its ports"
        yield warning("ray", text, "export RAY_AUTH_MODE=token before `ray start`")
    else:
        yield ok("ray", f"{version}, {f'RAY_AUTH_MODE={mode}' if mode else 'no cluster in use'}")


def _ray_is_in_use() -> bool:
    # `ray start` writes the file and `ray stop` removes it; asking Ray itself would import it.
    return "RAY_ADDRESS" in os.environ or Path("/tmp/ray/ray_current_cluster").exists()


def _first_output_line(*command: str) -> str | None:
    """Return the first line that a command prints; None if it fails or hangs."""
    # squeue may block when slurmctld does not answer.
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip().split("\n")[0] if done.returncode == 0 else None
