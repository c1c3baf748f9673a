"""Opens the memory in which decoded pictures stay after the first epoch (data.keep), or says why they do not fit."""

from __future__ import annotations

import mmap
import secrets
import shutil
import socket
from pathlib import Path

import torch

from collagan_dist.data.loading.canvas_store import CanvasStore, needed_bytes
from collagan_dist.distributed.group import Group
from collagan_dist.errors import ConfigError, mark_on_all_ranks
from collagan_dist.setup import Setup
from collagan_dist.tasks import needed_annotations
from collagan_dist.units import format_bytes

_SHARED_MEMORY = Path("/dev/shm")
_LEFT_FREE = 0.1  # share of the free memory that is left to everything else


def open_canvas_store(setup: Setup, canvas: int) -> CanvasStore:
    """Return the store of data.keep for the training split. Collective; raises ConfigError, on all ranks, where it does not fit."""
    config, world = setup.config, setup.world
    samples = setup.manifest.samples(config.data.split)
    labels, _ = needed_annotations(setup.tasks.values())
    needed = needed_bytes(samples, canvas, labels)
    shared = config.data.keep == "host" and world.local_size > 1
    where, free = _free_memory(setup, shared)
    # Only one rank of a node takes the host's memory for all of them.
    fits = needed <= free * (1 - _LEFT_FREE) or (shared and world.local_rank > 0)
    problem = (
        f"data.keep: {config.data.keep}: {samples} decoded pictures of {canvas}x{canvas} take {format_bytes(needed)}, and {where} "
        f"has {format_bytes(free)} free on rank {world.rank}; set data.keep to none, or make room"
    )
    if problems := [text for text in setup.group.all_gather("" if fits else problem) if text]:
        raise mark_on_all_ranks(ConfigError(problems[0]))
    if config.data.keep == "device":
        return CanvasStore(samples, canvas, labels, setup.device)
    memory = _shared_memory(setup.group, needed) if shared else mmap.mmap(-1, needed)
    return CanvasStore(samples, canvas, labels, setup.device, memory)


def _free_memory(setup: Setup, shared: bool) -> tuple[str, int]:
    """Return where the canvases would lie, and the bytes that are free there."""
    if setup.config.data.keep == "device" and setup.device.type == "cuda":
        return str(setup.device), torch.cuda.mem_get_info(setup.device)[0]
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    if setup.config.data.keep == "device":  # a CPU's ranks keep a copy each
        free //= setup.world.local_size
    # Containers often give it 64 MB (docker: --shm-size).
    return (
        (f"{_SHARED_MEMORY}", min(free, shutil.disk_usage(_SHARED_MEMORY).free)) if shared else ("this machine", free)
    )


def _shared_memory(group: Group, size: int) -> mmap.mmap:
    """Return memory that all ranks of a node map; it is freed with the last of them. Collective."""
    name, host = f"collagan-{secrets.token_hex(8)}", socket.gethostname()
    is_first = group.world.local_rank == 0
    if is_first:
        with (_SHARED_MEMORY / name).open("xb") as file:
            file.truncate(size)
    said = group.all_gather([host, name if is_first else ""])
    path = _SHARED_MEMORY / next(other for place, other in said if place == host and other)
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), size)
    group.barrier("the store of canvases")
    if is_first:
        path.unlink()  # nothing is left behind, however the ranks end
    return memory
