"""RUN/lease: the newest start of a run, and a sign of life. Only that start writes.

A start takes the next number. It takes over at once from one that has ended, whose process is dead, or that belongs to the
same job (a restart); from one on another host only when that shows no sign of life: its file is touched every few seconds, and
the new start watches whether that goes on. Clocks of two hosts are never compared.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from collagan_dist import files
from collagan_dist.errors import ClusterError, DataError
from collagan_dist.runs import owner
from collagan_dist.runs.owner import Owner

BEAT = 5.0  # seconds between signs of life
_MISSED = 3  # so many of them missing are a death
_LOOK = 1.0  # seconds between looks at who owns the run
_DYING = 10.0  # seconds that a process of the same job may take to end
_LOCK_WAIT = 30.0
_LARGEST = 4096
_LIFE = ", start "  # between a job's name and the number of its start (world.start_label)


class Claim:
    """A start that wants a run folder: `poll` until it gives a lease. Raises ClusterError where another start is alive.

    `known` is the newest generation by other signs, should the lease have been removed.
    """

    def __init__(self, run: Path, job: str = "", known: int = 0) -> None:
        self.run, self.job, self.known = run, job, known
        self._began = time.monotonic()
        self._seen: tuple[str, int] | None = None

    def poll(self, seconds: float) -> Lease | None:
        """The lease; None when it is still to be seen whether the former owner lives, after looking for so long."""
        last = time.monotonic() + seconds
        while True:
            with _locked(self.run):
                text, beat = _read(self.run)
                if self._is_free(owner.parse(text), beat):
                    return Lease(self.run, max(owner.parse(text).generation, self.known), self.job)
            if time.monotonic() >= last:
                return None
            time.sleep(min(0.2, seconds))

    def _is_free(self, former: Owner, beat: int) -> bool:
        waited = time.monotonic() - self._began
        if former.ended or former.is_me():
            return True
        if former.is_here():
            if not former.is_alive():
                return True
            if not self._is_restart_of(former) or waited > _DYING:
                raise _refusal(self.run, former)
            return False
        if self._is_restart_of(former):
            return True
        sign = (former.token, beat)
        if self._seen is None:
            self._seen = sign
        if self._seen != sign:
            raise _refusal(self.run, former)
        return waited > _MISSED * (former.beat or BEAT)

    def _is_restart_of(self, former: Owner) -> bool:
        """Whether the former start was an earlier life of this job; not another step of the same life of a Slurm job."""
        (mine, _, life), (theirs, _, before) = (text.partition(_LIFE) for text in (self.job, former.job))
        return bool(mine) and mine == theirs and not (mine.startswith("slurm:") and life == before)


class Lease:
    """This start's ownership of a run folder, from its making to `release`. `lost` becomes true when another start took over."""

    def __init__(self, run: Path, former: int = 0, job: str = "") -> None:
        self.run, self.lost = run, False
        # The token tells two starts apart that took the same number at the same moment.
        self.owner = owner.me(former + 1, secrets.token_hex(8), job, BEAT)
        files.write_text(run / "lease", self.owner.text())
        self._file = os.open(run / "lease", os.O_RDONLY)
        self._ended = threading.Event()
        self._life = threading.Thread(target=self._live, name="lease", daemon=True)
        self._life.start()

    @property
    def generation(self) -> int:
        return self.owner.generation

    def check(self) -> None:
        """Raises ClusterError when this start does not own the run folder any more."""
        text, _ = _read(self.run)
        if text == self.owner.text():
            return
        self.lost = True
        newest = owner.parse(text)
        who = (
            f"start {newest.generation} of this run has taken over"
            if text
            else "its file `lease` was removed: taken over"
        )
        raise ClusterError(f"{self.run}: {who} from this one (start {self.generation}); nothing was written since")

    def mine(self, fresh: bool = False) -> bool:
        """Whether this start owns the run folder: as of a second ago, or by a look at the file."""
        if fresh:
            with suppress(OSError, ClusterError):  # storage that is away for a moment is no loss
                self.check()
        return not self.lost

    @contextmanager
    def held(self) -> Iterator[None]:
        """Around the renames of a write: nobody takes over in the middle, where the file system has locks."""
        with _locked(self.run):
            self.check()
            yield

    def release(self) -> None:
        """Say that this start has ended, so that the next one need not wait."""
        if not self._ended.is_set():
            self._ended.set()
            with suppress(OSError, DataError, ClusterError), self.held():
                files.write_text(self.run / "lease", replace(self.owner, state="ended").text())
            self._life.join()
            os.close(self._file)

    def _live(self) -> None:
        """Touch the file now and then, and look whether it is still ours."""
        touched = time.monotonic()
        while not self._ended.wait(_LOOK) and not self.lost:
            with suppress(OSError, ClusterError):  # storage that is away for a moment is no loss
                self.check()
                if time.monotonic() - touched >= BEAT:
                    touched = time.monotonic()
                    os.utime(self._file)  # our own file, even where a newer start has just put its own there


def _read(run: Path) -> tuple[str, int]:
    """The text and the last sign of life of a lease; ("", 0) without one. Opened anew, since network storage shows old times else."""
    try:
        with (run / "lease").open("rb") as file:
            return file.read(_LARGEST).decode(errors="replace"), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return "", 0


def is_anothers(run: Path, job: str) -> bool:
    """Whether a live start of another job trains there, as far as it can be seen from this host."""
    former = owner.parse(_read(run)[0])
    if former.ended or former.is_me() or (job and former.job.partition(_LIFE)[0] == job.partition(_LIFE)[0]):
        return False
    return not former.is_here() or former.is_alive()


def _refusal(run: Path, other: Owner) -> ClusterError:
    return ClusterError(
        f"{run} is being trained by pid {other.pid} on host {other.host} since {other.since}; "
        f"stop it, give another --run, or remove {run / 'lease'} to take the run over"
    )


@contextmanager
def _locked(run: Path) -> Iterator[None]:
    """Alone among starts, where the file system has locks and nobody keeps one for long."""
    handle = os.open(run / ".lease.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        last = time.monotonic() + _LOCK_WAIT
        while not files.try_lock(handle) and time.monotonic() < last:
            time.sleep(0.05)
        yield
    finally:
        os.close(handle)
