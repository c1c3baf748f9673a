"""The checkpoint that a run goes on from: rank 0 says which, every rank reads that one by itself."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

from collagan_dist.distributed.group import Group
from collagan_dist.errors import CheckpointError, on_all_ranks
from collagan_dist.runs import checkpoint
from collagan_dist.runs.checkpoint import Loaded

_VISIBLE = 30.0  # seconds that network storage may take to show a new folder on another node


def newest(folder: Path, group: Group, strict: bool) -> Loaded | None:
    """The newest whole checkpoint, the same one on all ranks; None where there is none. Collective.

    Every rank checks the bytes that it reads: it has to read them anyway, hashing is as fast as reading, and a node whose storage or
    memory errs is named instead of teaching the others nonsense. Raises CheckpointError, on all ranks, where one of them cannot.
    """
    found: list[Loaded | None] = [None]
    step = group.on_rank0(lambda: _find(folder, strict, found))
    if step is None:
        return None
    loaded, problem = found[0], None
    try:
        loaded = loaded or _load_soon(checkpoint.place(folder, step))
    except CheckpointError as error:
        problem = f"rank {group.world.rank} on {socket.gethostname()}: {error}"
    if problems := [text for text in group.all_gather(problem) if text]:
        text = f"{folder}: step {step} is whole as rank 0 reads it, and not everywhere; the run folder must be on storage that all nodes share"
        raise on_all_ranks(CheckpointError("\n  ".join([text, *problems])))
    return loaded


def _find(folder: Path, strict: bool, found: list[Loaded | None]) -> int | None:
    """The step; what was read goes into `found`, since tensors are not to travel."""
    found[0] = checkpoint.load_latest(folder, warn, strict)
    return None if found[0] is None else int(found[0].state["step"])


def _load_soon(path: Path) -> Loaded:
    """A checkpoint that another node has seen: network storage may show it here some seconds later."""
    last = time.monotonic() + _VISIBLE
    while not (path / "manifest.json").exists() and time.monotonic() < last:
        time.sleep(1)
        list(path.parent.glob("*"))  # which asks the storage anew
    return checkpoint.load(path)


def warn(text: str) -> None:
    print(f"warning: {text}; taking the checkpoint before it", file=sys.stderr, flush=True)
