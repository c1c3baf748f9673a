"""Checkpoints that are taken up from a place of copies (copies.py): downloaded, every hash compared, renamed into the run folder."""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Callable
from contextlib import nullcontext

from collagan_dist import files, structured
from collagan_dist.errors import CheckpointError
from collagan_dist.places import DamagedThere, Place
from collagan_dist.runs import checkpoint
from collagan_dist.runs.copies import whole_steps
from collagan_dist.runs.layout import CHECKPOINTS, MANIFEST_FILE, RunPaths, step_name
from collagan_dist.runs.lease import Lease

logger = logging.getLogger(__name__)


def take_up(
    place: Place,
    paths: RunPaths,
    lease: Lease | None,
    strict: bool,
    distrust: Callable[[int], None] = lambda step: None,
) -> int | None:
    """Download the newest whole checkpoint of a place if the run folder has no undamaged one as new; return its step, or None.

    `distrust` hears of each damaged copy. Raises CheckpointError where all copies are damaged and the run folder has none, or the
    newest one is with `strict`. Raises DataError for a place that cannot be read now: nobody knows whether its copies are damaged.
    """
    whole = whole_steps(place.files_below(CHECKPOINTS))
    newest = _newest_undamaged(paths) if whole else -1
    for step in (step for step in reversed(whole) if step > newest):
        try:
            _download(place, paths, lease, step)
        except (CheckpointError, DamagedThere) as error:
            if strict:
                hint = "remove it there, or run without --strict to go on from the one before it"
                raise CheckpointError(f"{error}; {hint}") from None
            distrust(step)
            logger.warning("warning: %s; taking the checkpoint before it", error)
            continue
        logger.info("step %s was taken from %s into %s", step, place, paths.folder)
        return step
    if whole and newest < 0:
        raise CheckpointError(f"{place}: no copy of a checkpoint is undamaged; remove them there to start anew")
    return None


def _newest_undamaged(paths: RunPaths) -> int:
    """Return the step of the newest checkpoint here whose bytes are right; -1 without one. Raises Unreadable."""
    for step in reversed(paths.committed_steps()):
        try:
            checkpoint.check(paths.checkpoint(step))
        except checkpoint.Unreadable:
            raise
        except CheckpointError:  # which is named when the checkpoint is loaded, unless its copy takes its place
            continue
        return step
    return -1


def _download(place: Place, paths: RunPaths, lease: Lease | None, step: int) -> None:
    """Download a checkpoint under a dotted name, compare every hash, and rename it. Raises CheckpointError, DataError, DiskFull."""
    source, final = f"{CHECKPOINTS}/{step_name(step)}", paths.checkpoint(step)
    partial = final.with_name(f".{final.name}-{lease.owner.token[:8] if lease else secrets.token_hex(4)}")
    content = place.read(f"{source}/{MANIFEST_FILE}", checkpoint.MAX_MANIFEST_BYTES)
    try:
        manifest = structured.parse(content, checkpoint.CheckpointManifest, place / f"{source}/{MANIFEST_FILE}")
        hashes = checkpoint.hashes_of(place.below(source), manifest)
        if manifest.step != step:
            raise ValueError(f"{MANIFEST_FILE} names step {manifest.step}")
    except ValueError as error:
        raise CheckpointError(f"{place / source}: is damaged ({error})") from None
    partial.mkdir(parents=True)
    try:
        with files.naming_full_disk(partial):
            for name, sha256 in hashes.items():
                said = f"a file with sha256 {sha256[:12]}…"
                place.get(f"{source}/{name}", partial / name, checkpoint.MAX_TENSOR_BYTES, sha256, said)
            # The log here is an older start's, unless it has a checkpoint as new that is damaged. A cache gets its log by itself.
            log = partial / paths.metrics_log.name
            outdated = paths.newest_step() < step or not paths.metrics_log.exists()
            has_log = lease is not None and outdated and place.find_to(log.name, log)
            files.write_bytes(partial / MANIFEST_FILE, content)  # which flushes the names in the folder, too
        with lease.held() if lease else nullcontext():
            # First: with the checkpoint, a next start would take no log any more. Lines of later steps are left out by the writer.
            if has_log:
                log.replace(paths.metrics_log)
                files.fsync(paths.folder)
            doomed = checkpoint.commit(partial, final)
        checkpoint.remove(doomed)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
