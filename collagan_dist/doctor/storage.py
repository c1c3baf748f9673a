"""Checks of the folder where runs are kept, and of a data set."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from collagan_dist import files
from collagan_dist.data.shards import remote
from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.data.shards.quick_check import quick_check
from collagan_dist.distributed.group import Group
from collagan_dist.doctor.finding import Finding, failed, ok, warning
from collagan_dist.errors import CollaganError

_MB = 1 << 20
_BYTES = 4 * _MB
_SLOW = 1.0  # seconds for writing so much
_FREE = 10 << 30
_LATE, _NEVER = 5.0, 30.0  # seconds until another node sees a new file


def writing(folder: Path) -> Iterator[Finding]:
    """Write, flush, rename, read, remove: as a checkpoint is written."""
    path = folder / f".collagan-doctor-{secrets.token_hex(4)}"
    content = os.urandom(_BYTES)
    begin = time.perf_counter()
    try:
        files.write_bytes(path, content)
        seconds, same = time.perf_counter() - begin, path.read_bytes() == content
    except (OSError, CollaganError) as error:
        yield failed(
            "storage",
            f"{folder} cannot be written: {error}",
            "start where runs may be kept, or mend rights, quota and mount",
        )
        return
    finally:
        if path.exists():
            path.unlink()
    free = shutil.disk_usage(folder).free
    text = f"{folder}: {_BYTES // _MB} MB written and flushed in {seconds:.2f} s, {free / (1 << 30):.0f} GB free"
    if not same:
        yield failed("storage", f"{folder}: what was read is not what was written", "have this file system looked at")
    elif seconds > _SLOW or free < _FREE:
        yield warning(
            "storage", text, "checkpoints need a quicker or emptier place" if seconds > _SLOW else "make room"
        )
    else:
        yield ok("storage", text)


def visible(folder: Path, group: Group) -> Iterator[Finding]:
    """Whether every rank sees what rank 0 writes. Collective; rank 0 has the finding."""
    path = folder / group.broadcast(f".collagan-doctor-{secrets.token_hex(4)}")
    trouble = None
    if group.world.is_rank0:
        try:
            files.write_bytes(path, b"seen")
        except (OSError, CollaganError) as error:
            trouble = str(error)
    if group.broadcast(trouble) is not None:
        return  # the check of writing says why
    begin = time.monotonic()
    while not (seen := path.exists()) and time.monotonic() - begin < _NEVER:
        time.sleep(0.05)
    took = group.all_gather((seen, time.monotonic() - begin, os.uname().nodename, str(folder)))
    if not group.world.is_rank0:
        return
    path.unlink(missing_ok=True)
    blind = sorted({f"{host}:{where}" for seen, _, host, where in took if not seen})
    slowest = max(seconds for _, seconds, _, _ in took)
    if blind:
        yield failed("shared folder", f"a file of rank 0 in {folder} is not seen after {_NEVER:g} s at {', '.join(blind)}",
                     "start in a folder that all nodes share, and give --run and --data there")  # fmt: skip
    elif slowest > _LATE:
        yield warning(
            "shared folder",
            f"{folder}: a new file is seen after {slowest:.1f} s",
            "mount it with shorter attribute caching (actimeo)",
        )
    else:
        yield ok("shared folder", f"{folder}: a new file is seen by all {len(took)} ranks after {slowest:.1f} s")


def shards(data: str) -> Iterator[Finding]:
    """What is checked of a data set before a training."""
    try:
        manifest = read_manifest(remote.open_location(data))
        quick_check(manifest)
    except CollaganError as error:
        lines = str(error).splitlines()
        more = f" (and {len(lines) - 2} more)" if len(lines) > 2 else ""
        yield failed("data", lines[0] + more, lines[-1] if len(lines) > 1 else "")
        return
    samples = ", ".join(f"{manifest.samples(split)} {split}" for split in manifest.splits)
    yield ok("data", f"{data}: {samples} samples, sizes and indexes are right, {manifest.hash[:12]}")
