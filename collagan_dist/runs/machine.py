"""What computes: processors, threads, libraries and commit, on which the last bits of a result depend."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from collagan_dist import __version__
from collagan_dist.distributed.group import Group
from collagan_dist.distributed.versions import decoding_library


def rank_facts(group: Group) -> dict[str, Any]:
    """Return what this rank computes with, and where it runs."""
    device = group.device
    return {
        "host": socket.gethostname(), "pid": os.getpid(), "device": str(device),
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(), "decoder": f"{decoding_library()} on {device.type}",
        "launcher": group.world.launcher, "python": platform.python_version(), "torch": torch.__version__,
        "collagan_dist": __version__,
        **({"memory_bytes": torch.cuda.get_device_properties(device).total_memory} if device.type == "cuda" else {}),
    }  # fmt: skip


def machine_state(ranks: Sequence[Mapping[str, Any]], commit: str | None = None) -> dict[str, Any]:
    """Return what decides the last bits of a result: number of ranks, threads, devices, what decodes pictures, torch, and the commit if known."""
    # Sums are split by threads, and kernels are chosen by the kind of processor.
    keys = ("threads", "name", "torch", "decoder")
    kinds = {key: ", ".join(sorted({str(rank[key]) for rank in ranks})) for key in keys}
    return {"ranks": len(ranks), **kinds, **({"commit": commit} if commit else {})}


def code_commit() -> str | None:
    """Return the commit of the checkout that this program runs from, with -dirty if files differ from it; None for an installed one."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    with suppress(OSError, subprocess.SubprocessError):  # without git, or where git does not trust the checkout's owner
        asked = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    return None


def _processor() -> str:
    """Return the kind of processor, by Linux's name of it where there is one."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
