"""Checks of the working folder, which will hold runs, and of a data set."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from collagan_dist import files
from collagan_dist.config.load import load_config
from collagan_dist.data.shards import remote
from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.data.shards.quick_check import quick_check
from collagan_dist.distributed.group import Group
from collagan_dist.doctor.finding import Finding, failed, ok, warning
from collagan_dist.errors import CollaganError
from collagan_dist.models.registry import estimate_checkpoint_bytes
from collagan_dist.units import format_bytes

_MB = 1 << 20
_TEST_BYTES = 4 * _MB
_SLOW_WRITE_SECONDS = 1.0  # for _TEST_BYTES
_PRESET = "stable"  # what most people train: its checkpoints are to have room
# Until another node sees a new file. NFS caches directory entries for up to a minute by default.
_LATE_SECONDS, _GIVE_UP_SECONDS = 5.0, 30.0


def check_writing(folder: Path) -> Iterator[Finding]:
    """Write, flush, rename, read and remove a file."""
    # By the function that writes checkpoints, and random bytes: a compressing file system would write zeros too fast.
    path = folder / f".collagan-doctor-{secrets.token_hex(4)}"
    content = os.urandom(_TEST_BYTES)
    begin = time.perf_counter()
    try:
        files.write_bytes(path, content)
        seconds, same = time.perf_counter() - begin, path.read_bytes() == content
    except (OSError, CollaganError) as error:
        mend = "start in a folder that can be written, or mend rights, quota and mount"
        yield failed("storage", f"{folder} cannot be written: {error}", mend)
        return
    finally:
        if path.exists():
            path.unlink()
    free, config = files.free_bytes(folder), load_config(_PRESET)
    size, count = estimate_checkpoint_bytes(config), config.checkpoint.keep + 1
    text = (
        f"{folder}: {_TEST_BYTES // _MB} MB written and flushed in {seconds:.2f} s, {'unknown' if free is None else format_bytes(free)} free; "
        f"a run of `{_PRESET}` takes {format_bytes(count * size)} ({count} checkpoints)"
    )
    if not same:
        yield failed("storage", f"{folder}: what was read is not what was written", "have this file system checked")
    elif seconds > _SLOW_WRITE_SECONDS:
        yield warning("storage", text, "checkpoints need faster storage")
    elif free is not None and free < count * size:
        yield warning("storage", text, "make room")
    else:
        yield ok("storage", text)


def check_shared_folder(folder: Path, group: Group) -> Iterator[Finding]:
    """Check whether every rank sees a file of rank 0. Collective; rank 0 has the finding."""
    # All ranks need the random name that rank 0 chose.
    path = folder / group.broadcast(f".collagan-doctor-{secrets.token_hex(4)}")
    error_text = None
    if group.world.is_rank0:
        try:
            files.write_bytes(path, b"seen")
        except (OSError, CollaganError) as error:
            error_text = str(error)
    # All ranks return or none: the collective below needs all of them.
    if group.broadcast(error_text) is not None:
        return  # check_writing says why
    begin = time.monotonic()
    while not (seen := path.exists()) and time.monotonic() - begin < _GIVE_UP_SECONDS:
        time.sleep(0.05)
    took = group.all_gather((seen, time.monotonic() - begin, os.uname().nodename, str(folder)))
    if not group.world.is_rank0:
        return
    path.unlink(missing_ok=True)
    unseen = sorted({f"{host}:{where}" for seen, _, host, where in took if not seen})
    slowest = max(seconds for _, seconds, _, _ in took)
    if unseen:
        text = f"a file of rank 0 in {folder} is not seen after {_GIVE_UP_SECONDS:g} s at {', '.join(unseen)}"
        yield failed("shared folder", text, "start in a folder that all nodes share, and give --out and --data there")
    elif slowest > _LATE_SECONDS:
        text = f"{folder}: a new file is seen after {slowest:.1f} s"
        yield warning("shared folder", text, "mount it with shorter attribute caching (actimeo)")
    else:
        yield ok("shared folder", f"{folder}: a new file is seen by all {len(took)} ranks after {slowest:.1f} s")


def check_shards(data: str) -> Iterator[Finding]:
    """Check a data set as a training does at its start."""
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
