"""Copies of a run's checkpoints in another place (`checkpoint.copy_to`): uploaded beside training, taken up by a start elsewhere.

PLACE/RUN looks like a run folder. A checkpoint's manifest.json comes last, after all other files were read back and their hashes
compared, and is removed first. So what has one is whole; a start checks every byte all the same.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
from contextlib import nullcontext, suppress
from pathlib import Path

from collagan_dist import files, structured
from collagan_dist.errors import CheckpointError, ClusterError, CollaganError, ConfigError, DataError
from collagan_dist.places import WRITABLE, Place, open_place
from collagan_dist.runs import checkpoint
from collagan_dist.runs.layout import MANIFEST_FILE, RunPaths, step_name, step_of
from collagan_dist.runs.lease import Lease
from collagan_dist.runs.place_lease import PlaceLease

logger = logging.getLogger(__name__)

_CHECKPOINTS = "checkpoints"
_BEAT_POLL_SECONDS = 5.0  # between looks whether the place's lease is due
_RELEASE_SECONDS = 5.0  # that an end may wait for a store that does not answer
MAX_BESIDE_BYTES = 1 << 28
# Beside the checkpoints, so that the place can be used like a run folder; the log, so that curves go on elsewhere.
BESIDE = ("config.yaml", "data.json", "metrics.jsonl")


def place_of(copy_to: str | None, run: Path) -> Place | None:
    """Return the place of a run's copies, or None without one. Raises ConfigError."""
    if copy_to is None:
        return None
    place = open_place(copy_to, WRITABLE, "checkpoints are copied to")
    name = run.resolve().name
    if not isinstance(place, Path):
        return place.below(name)
    folder, own = place.expanduser().resolve() / name, run.resolve()
    if folder.is_relative_to(own) or own.is_relative_to(folder):
        raise ConfigError(f"checkpoint.copy_to: {copy_to} holds the run folder itself; give another folder or a URL")
    return Place(str(folder))


class Copies:
    """Copies of one run, made by a thread of rank 0. Training never waits for it, and nothing it meets ends the run."""

    def __init__(self, place: Place, paths: RunPaths, keep: int, lease: PlaceLease) -> None:
        self.place, self.paths, self.keep, self.lease = place, paths, keep, lease
        self.lost = False
        self._copied: dict[int, bytes] = {}  # manifests of what is there, by step
        self._failures: list[tuple[int, str]] = []
        self._changed = threading.Condition()
        self._asked = self._done = 0
        self._closing = False
        # Not an executor's thread: the interpreter would wait for it without a bound.
        self._thread = threading.Thread(target=self._work, name="copies", daemon=True)
        self._thread.start()

    def request(self) -> None:
        """Copy what is new. Returns at once."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Return whether all that was asked for has been tried, after `seconds` at most."""
        with self._changed:
            return self._changed.wait_for(lambda: self._done >= self._asked or self.lost, max(seconds, 0))

    def take_failures(self) -> list[tuple[int, str]]:
        """Return what failed since the last call: step and reason."""
        with self._changed:
            failures, self._failures = self._failures, []
        return failures

    def close(self) -> None:
        """Give up the place. What is not copied by now is left to the next start."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if not self.lost:
            release = threading.Thread(target=self._release, daemon=True)
            release.start()
            release.join(_RELEASE_SECONDS)

    def _release(self) -> None:
        with suppress(CollaganError, OSError):  # else the next start waits until it takes this one for dead
            self.lease.release()

    def _work(self) -> None:
        while not self._closing and not self.lost:
            with self._changed:
                asked = self._asked
                if asked == self._done:
                    self._changed.wait(_BEAT_POLL_SECONDS)
                    asked = self._asked
            step = self.paths.newest_step()
            try:
                if asked > self._done and not self._closing:
                    self._copy_new()
                elif not self._closing:
                    self.lease.beat()
            except ClusterError as error:
                self._fail(step, error, "")
                self.lost = True
            except (CollaganError, OSError) as error:
                # A beat that fails says nothing new: the next copy will.
                if asked > self._done:
                    self._fail(step, error, "; it is tried again with the next checkpoint, and by the next start")
            with self._changed:
                self._done = asked
                self._changed.notify_all()

    def _fail(self, step: int, error: Exception, then: str) -> None:
        logger.warning("warning: step %s is not copied to %s: %s%s", step, self.place, error, then)
        with self._changed:
            self._failures.append((step, str(error)))

    def _copy_new(self) -> None:
        """Copy the newest checkpoints that are not there, the newest first; then remove older ones there."""
        self.lease.check()
        steps = self.paths.committed_steps()[-self.keep :]
        for step in reversed(steps):
            with suppress(FileNotFoundError):  # removed here meanwhile, as older ones are
                self._copy(step)
        if steps:
            self._prune(steps)

    def _copy(self, step: int) -> None:
        folder, target = self.paths.checkpoint(step), f"{_CHECKPOINTS}/{step_name(step)}"
        manifest = (folder / MANIFEST_FILE).read_bytes()
        if step not in self._copied:
            self._copied[step] = self.place.find_file(f"{target}/{MANIFEST_FILE}", checkpoint.MAX_MANIFEST_BYTES) or b""
        if self._copied[step] == manifest:
            return
        if self._copied[step]:  # another one of this step, found damaged since; without a manifest it is none
            self.place.remove(f"{target}/{MANIFEST_FILE}")
        del self._copied[step]
        hashes = checkpoint.hashes_of(folder, structured.parse(manifest, checkpoint.CheckpointManifest, str(folder)))
        for name, expected in hashes.items():
            if self._closing:  # the start has ended, so another may begin
                return
            self.lease.beat()
            self.place.put(folder / name, f"{target}/{name}")
            self._read_back(folder / name, f"{target}/{name}", expected)
        for name in BESIDE:
            with suppress(FileNotFoundError):
                self.place.put(self.paths.folder / name, name)
        self.lease.check()
        self.place.write(f"{target}/{MANIFEST_FILE}", manifest)
        self._copied[step] = manifest

    def _read_back(self, local: Path, name: str, expected: str) -> None:
        # Checksums of uploads differ between stores and drivers; reading costs the traffic once more, and proves it.
        if self.place.sha256(name, local.stat().st_size) != expected:
            raise DataError(f"{self.place / name}: is not what was uploaded (its sha256 differs from the manifest's)")

    def _prune(self, steps: list[int]) -> None:
        """Remove all but `steps` there, up to the newest of them: older copies, and halves of copies that were never finished."""
        there = {
            step for name in self.place.files_below(_CHECKPOINTS) if (step := step_of(name.split("/")[0])) is not None
        }
        for step in sorted(there - set(steps)):
            if step < steps[-1]:
                self._copied.pop(step, None)
                folder = f"{_CHECKPOINTS}/{step_name(step)}"
                self.place.remove(f"{folder}/{MANIFEST_FILE}", folder)


def take_up(place: Place, paths: RunPaths, lease: Lease | None, strict: bool) -> int | None:
    """Download the newest whole checkpoint of a place if the run folder has none as new; return its step, or None.

    Raises CheckpointError where all copies are damaged and the run folder has none, or the newest one is with `strict`.
    """
    names = set(place.files_below(_CHECKPOINTS))
    whole = sorted(
        (step for name in names if (step := step_of(name.removesuffix(f"/{MANIFEST_FILE}"))) is not None), reverse=True
    )
    newest = max(paths.committed_steps(), default=-1)
    for step in (step for step in whole if step > newest):
        try:
            _download(place, paths, lease, step)
        except (CheckpointError, DataError) as error:
            if strict:
                raise CheckpointError(
                    f"{error}; remove it there, or run without --strict to go on from the one before it"
                ) from None
            logger.warning("warning: %s; taking the checkpoint before it", error)
            continue
        log = None if paths.metrics_log.exists() else place.find_file(paths.metrics_log.name, MAX_BESIDE_BYTES)
        if log:
            paths.metrics_log.write_bytes(log)
        logger.info("step %s was taken from %s into %s", step, place, paths.folder)
        return step
    if whole and newest < 0:
        raise CheckpointError(f"{place}: no copy of a checkpoint is undamaged; remove them there to start anew")
    return None


def _download(place: Place, paths: RunPaths, lease: Lease | None, step: int) -> None:
    """Download a checkpoint under a dotted name, compare every hash, and rename it. Raises CheckpointError, DataError, DiskFull."""
    source, final = f"{_CHECKPOINTS}/{step_name(step)}", paths.checkpoint(step)
    partial = final.with_name(f".{final.name}-{lease.owner.token[:8] if lease else secrets.token_hex(4)}")
    content = place.read(f"{source}/{MANIFEST_FILE}", checkpoint.MAX_MANIFEST_BYTES)
    try:
        manifest = structured.parse(content, checkpoint.CheckpointManifest, place / f"{source}/{MANIFEST_FILE}")
        hashes = checkpoint.hashes_of(place.below(source), manifest)
    except ValueError as error:
        raise CheckpointError(f"{place / source}: is damaged ({error})") from None
    partial.mkdir(parents=True)
    try:
        with files.naming_full_disk(partial):
            for name, sha256 in hashes.items():
                said = f"a file with sha256 {sha256[:12]}…"
                place.get(f"{source}/{name}", partial / name, checkpoint.MAX_TENSOR_BYTES, sha256, said)
            files.write_bytes(partial / MANIFEST_FILE, content)
        with lease.held() if lease else nullcontext():
            checkpoint.commit(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
