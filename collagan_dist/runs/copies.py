"""Copies of a run's checkpoints in another place (`checkpoint.copy_to`), uploaded beside training; taken_up.py has the way back.

PLACE/RUN looks like a run folder. A checkpoint's manifest.json comes last, after all other files were read back and their hashes
compared, and is removed first. So what has one is whole; a start checks every byte all the same. What a copy that failed left is removed.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from pathlib import Path

from collagan_dist import files, structured
from collagan_dist.errors import CheckpointError, ClusterError, CollaganError, ConfigError, DataError
from collagan_dist.places import LOCAL, WRITABLE, Place, open_place
from collagan_dist.runs import checkpoint
from collagan_dist.runs.layout import CHECKPOINTS, MANIFEST_FILE, RunPaths, step_name, step_of
from collagan_dist.runs.place_lease import PlaceLease

logger = logging.getLogger(__name__)

_BEAT_POLL_SECONDS = 5.0  # between looks whether a beat of the place's lease is due
_AGAIN = "; it is tried again with the next checkpoint, and by the next start"
_RELEASE_SECONDS = 5.0  # that an end may wait for a store that does not answer
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
    try:
        folder, own = place.expanduser().resolve() / name, run.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a user that is not there, before Python 3.13 a loop of links
        problem = f"cannot be used as a folder ({error})"
        raise ConfigError(f"checkpoint.copy_to: {copy_to} {problem}; give another folder or a URL") from None
    if folder.is_relative_to(own) or own.is_relative_to(folder):
        raise ConfigError(f"checkpoint.copy_to: {copy_to} holds the run folder itself; give another folder or a URL")
    return Place(str(folder))


class Copies:
    """Copies of one run, made by a thread of rank 0. Training never waits for it, and nothing it meets ends the run."""

    def __init__(self, place: Place, paths: RunPaths, keep: int, lease: PlaceLease) -> None:
        self.place, self.paths, self.keep, self.lease = place, paths, keep, lease
        self.lost = False
        # Manifests that need nothing more, by step: of copies that are whole there, of checkpoints that are damaged here.
        self._settled: dict[int, bytes] = {}
        self._distrusted: set[int] = set()
        self._failures: list[tuple[int, str]] = []
        self.failed = False  # whether anything failed since the last pass over the checkpoints began
        self._changed = threading.Condition()
        self._asked = self._done = 0
        self._closing = threading.Event()
        # Not an executor's threads: the interpreter would wait for them without a bound.
        threading.Thread(target=self._copy_loop, name="copies", daemon=True).start()
        # Another thread: one large file may take longer than a start is believed to live without a beat.
        threading.Thread(target=self._beat_loop, name="copies-beat", daemon=True).start()

    def distrust(self, step: int) -> None:
        """Copy this step anew, whatever is there: it was found damaged."""
        self._distrusted.add(step)

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
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        if not self.lost:
            release = threading.Thread(target=self._release, daemon=True)
            release.start()
            release.join(_RELEASE_SECONDS)

    def _release(self) -> None:
        with suppress(CollaganError, OSError):  # else the next start waits until it takes this one for dead
            self.lease.release()

    def _beat_loop(self) -> None:
        while not self._closing.wait(_BEAT_POLL_SECONDS) and not self.lost:
            try:
                self.lease.beat()
            except ClusterError as error:
                self._lose(error)
            except (CollaganError, OSError):
                pass  # the next copy says what is wrong with the place

    def _copy_loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing.is_set() or self.lost or self._asked > self._done)
                if self._closing.is_set() or self.lost:
                    return
                asked, self.failed = self._asked, False
            try:
                self._copy_new()
            except ClusterError as error:
                self._lose(error)
            except Exception as error:  # whatever it is: a thread that ends would let the end of the run wait for it
                self._fail(self.paths.newest_step(), error, _AGAIN)
            with self._changed:
                self._done = asked
                self._changed.notify_all()

    def _lose(self, error: ClusterError) -> None:
        """Copy nothing more: another start has the place."""
        with self._changed:
            if self.lost:
                return
            self._fail(self.paths.newest_step(), error, "; it trains on")  # before anybody who waits is woken
            self.lost = True
            self._changed.notify_all()

    def _fail(self, step: int, error: Exception, then: str) -> None:
        logger.warning("warning: step %s is not copied to %s: %s%s", step, self.place, error, then)
        with self._changed:
            self._failures.append((step, str(error)))
            self.failed = True

    def _copy_new(self) -> None:
        """Copy the newest checkpoints that are not there, the newest first; then remove older ones there."""
        self.lease.check()
        steps = self.paths.committed_steps()[-self.keep :]
        for step in reversed(steps):
            manifest = b""
            try:
                manifest = files.read_regular(
                    self.paths.checkpoint(step) / MANIFEST_FILE, checkpoint.MAX_MANIFEST_BYTES
                )
                if self._settled.get(step) != manifest:
                    self._copy_making_room(step, manifest)
            except FileNotFoundError:
                pass  # removed here meanwhile, as older ones are
            except CheckpointError as error:  # damaged here: nothing to copy, and no reason to leave out the others
                self._settled[step] = manifest
                self._fail(step, error, "")
            except (DataError, OSError) as error:
                self._fail(step, error, _AGAIN)
                return
        if steps and not self._closing.is_set():
            self._prune(steps)

    def _copy_making_room(self, step: int, manifest: bytes) -> None:
        """Copy a checkpoint, or leave nothing of it there. On a full disk older copies go for it, one after another."""
        while True:
            try:
                self._copy(step, manifest)
                return
            except (DataError, OSError) as error:
                if self._ended:  # another start may begin
                    raise
                self._remove_half(step)
                full = isinstance(error, files.DiskFull) or (isinstance(error, OSError) and files.is_disk_full(error))
                # A driver's full disk is one of this machine, such as that of its temporary files.
                if not full or self.place.scheme != LOCAL or not self._make_room(step):
                    raise

    def _copy(self, step: int, manifest: bytes) -> None:
        folder, target = self.paths.checkpoint(step), _folder_of(step)
        try:
            hashes = checkpoint.hashes_of(
                folder, structured.parse(manifest, checkpoint.CheckpointManifest, str(folder))
            )
        except ValueError as error:
            raise CheckpointError(f"{folder}: is damaged ({error})") from None
        there = self.place.find_file(f"{target}/{MANIFEST_FILE}", checkpoint.MAX_MANIFEST_BYTES)
        if there != manifest or step in self._distrusted:
            for name, expected in hashes.items():
                checkpoint.check_file(folder, name, expected)
            if there is not None:  # another one of this step, or a damaged copy; without a manifest it is none
                self.lease.check()
                self.place.remove(f"{target}/{MANIFEST_FILE}")
            if not self._upload(folder, target, hashes):
                return
            self.place.write(f"{target}/{MANIFEST_FILE}", manifest, self.lease.check)
        self._settled[step] = manifest
        self._distrusted.discard(step)

    def _upload(self, folder: Path, target: str, hashes: dict[str, str]) -> bool:
        """Upload the files of a checkpoint and those beside it, and read the former back. Return False once the start has ended."""
        for name, expected in hashes.items():
            if self._ended:
                return False
            self.place.put(folder / name, f"{target}/{name}")
            # Checksums of uploads differ between stores and drivers; reading costs the traffic once more, and proves it.
            if self.place.sha256(f"{target}/{name}", (folder / name).stat().st_size) != expected:
                where = self.place / f"{target}/{name}"
                raise DataError(f"{where}: is not what was uploaded (its sha256 differs from the manifest's)")
        for name in BESIDE:
            with suppress(FileNotFoundError):
                self.place.put(self.paths.folder / name, name)
        return not self._ended

    @property
    def _ended(self) -> bool:
        return self._closing.is_set() or self.lost

    def _remove_half(self, step: int) -> None:
        """Remove what a copy that failed left there, if the place still says that it is none."""
        with suppress(DataError, OSError):  # why the copy failed says more
            self.lease.check()
            # There is one where nothing was begun, or where only the answer to its upload was lost.
            if self.place.find_file(f"{_folder_of(step)}/{MANIFEST_FILE}", checkpoint.MAX_MANIFEST_BYTES) is None:
                self.place.remove(_folder_of(step))

    def _make_room(self, step: int) -> bool:
        """Remove older halves, or else the oldest whole copy but for the newest one; return False where there is none.

        Copies that were found damaged are no better than halves.
        """
        names = self.place.files_below(CHECKPOINTS)
        whole = [one for one in whole_steps(names) if one not in self._distrusted]
        halves = [one for one in _steps_begun(names) if one < step and one not in whole]
        doomed = halves or [one for one in whole[:-1] if one < step][:1]
        for one in doomed:
            logger.warning(
                "warning: %s: no room for step %s, so the copy of step %s is removed there", self.place, step, one
            )
            self._remove(one)
        return bool(doomed)

    def _remove(self, step: int) -> None:
        self.lease.check()  # a former removal may have taken minutes
        self.place.remove(f"{_folder_of(step)}/{MANIFEST_FILE}", _folder_of(step))

    def _prune(self, steps: list[int]) -> None:
        """Remove older copies but for the `keep` newest, and halves of copies that were never finished."""
        names = self.place.files_below(CHECKPOINTS)
        # By what is there: a start that took one copy up has fewer here than are to stay.
        whole = [step for step in whole_steps(names) if step <= steps[-1]]
        for step in _steps_begun(names):
            if step < steps[-1] and step not in whole[-self.keep :]:
                self._remove(step)


def _folder_of(step: int) -> str:
    return f"{CHECKPOINTS}/{step_name(step)}"


def _steps_begun(names: list[str]) -> list[int]:
    """Return the steps of which anything is there, oldest first, of the names of all files below `checkpoints`."""
    return sorted({step for name in names if (step := step_of(name.split("/")[0])) is not None})


def whole_steps(names: list[str]) -> list[int]:
    """Return the steps that have a manifest, oldest first, of the names of all files below `checkpoints`."""
    found = (step_of(name.removesuffix(f"/{MANIFEST_FILE}")) for name in names)
    return sorted(step for step in found if step is not None)
