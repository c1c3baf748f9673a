"""RUN/lease: which start of a run may write into its folder, with a heartbeat. Only the newest start writes.

A start takes the next generation. It takes over at once from one that has ended, whose process is dead, or that belongs to the
same job (a restart). A start on another host loses the lease only when its heartbeat stops.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from collagan_dist import files, structured
from collagan_dist.errors import ClusterError, DataError
from collagan_dist.places import Place

HEARTBEAT_SECONDS = 5.0
_MISSED_HEARTBEATS = 3  # after which a start on another host is taken for dead
_CHECK_SECONDS = 1.0  # between checks of who owns the run, so a lost lease is noticed within that time
_POLL_SECONDS = 0.2
_EXIT_SECONDS = 10.0  # that a process of the same job may take to exit before its restart is refused
_LOCK_SECONDS = 30.0
MAX_LEASE_BYTES = 4096
LOCK_FILE = ".lease.lock"
_SLURM = "slurm:"  # begins a job's name (world.job_id)
_RESTART_MARK = ", start "  # between a job's name and the number of its start (world.start_label)
# The words of RUN/lease and the fields that they stand for, in the file's order.
_FIELDS = {
    "host": "host", "pid": "pid", "born": "process_start", "machine": "machine", "job": "job", "since": "since",
    "beat": "heartbeat_seconds", "state": "state",
}  # fmt: skip


@dataclass(frozen=True)
class Owner:
    """The process of one start of a run.

    A pid alone is ambiguous: it is reused, and other machines and containers have the same ones. `machine` and
    `process_start` make it unique.
    """

    generation: structured.Count
    token: str = ""
    host: str = ""
    pid: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    process_start: str = ""
    machine: str = ""
    job: str = ""
    since: str = ""
    heartbeat_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.0
    state: str = "ended"

    @property
    def ended(self) -> bool:
        return self.state != "running"

    def is_this_process(self) -> bool:
        pid = os.getpid()
        return (self.machine, self.pid, self.process_start) == (machine_id(), pid, process_start_time(pid))

    def is_on_this_machine(self) -> bool:
        return self.machine == machine_id()

    def is_alive(self) -> bool:
        """Return whether the process still runs. Only valid on its own machine."""
        return bool(self.process_start) and process_start_time(self.pid) == self.process_start

    def text(self) -> str:
        """Return the content of RUN/lease. The first word is the generation, for people and shell scripts."""
        lines = [f"{word} {getattr(self, name)}" for word, name in _FIELDS.items()]
        return "\n".join([f"{self.generation} {self.token}", *lines]) + "\n"


_OWNER = TypeAdapter(Owner)


def this_process(generation: int, token: str, job: str, heartbeat_seconds: float) -> Owner:
    """Return this process as the owner of a run."""
    pid = os.getpid()
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return Owner(
        generation, token, socket.gethostname(), pid, process_start_time(pid), machine_id(), job, since,
        heartbeat_seconds, "running",
    )  # fmt: skip


def parse_owner(text: str) -> Owner:
    """Read an owner from the content of RUN/lease. One that is unreadable has ended, and has generation 0."""
    first, *rest = text.splitlines() or [""]
    generation, _, token = first.strip().partition(" ")
    # Words of newer programs are ignored: a run folder may meet two versions.
    lines = (line.partition(" ") for line in rest)
    values = {_FIELDS[word]: value for word, _, value in lines if word in _FIELDS}
    for known in (values, {}):
        # A number that does not fit leaves the generation, so that the next start has a higher one.
        with suppress(ValidationError):
            return _OWNER.validate_python({"generation": generation, "token": token, **known})
    return Owner(0)


def machine_id() -> str:
    """Return what identifies this boot of this machine; the host's name where the system has no boot id."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Containers of one machine share its boot id, but not their pids.
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def process_start_time(pid: int) -> str:
    """Return when a process started, in clock ticks since boot; "" if it is gone or a zombie."""
    try:
        # The name in parentheses may hold blanks and parentheses itself, so split behind the last one.
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return "" if Path("/proc/self").exists() else _probe_pid(pid)
    except OSError:
        return ""
    # A zombie (Z) keeps its pid until its parent waits for it, but writes nothing any more.
    return "" if state in "ZX" else rest[18]


def _probe_pid(pid: int) -> str:
    """Return "alive" or "" on systems without /proc, where only a signal tells whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:  # it exists and is another user's
        pass
    return "alive"


class LeaseRequest:
    """A start that wants a run folder, or the place of its copies (place_lease.py).

    `known` is the newest generation by other signs, in case the lease file was removed.
    """

    def __init__(self, run: Path | Place, job: str = "", known: int = 0) -> None:
        self.run, self.job, self.known = run, job, known
        self._began = time.monotonic()
        self._first_seen: tuple[str, int] | None = None

    def poll(self, seconds: float) -> Lease | None:
        """Wait up to `seconds` for the lease; None while it is unclear whether the former owner lives.

        Raises ClusterError where another start is alive.
        """
        assert isinstance(self.run, Path)
        deadline = time.monotonic() + seconds
        while True:
            with _locked(self.run):
                text, beat = _read(self.run)
                if self.is_free(parse_owner(text), beat):
                    return Lease(self.run, max(parse_owner(text).generation, self.known), self.job)
            if time.monotonic() >= deadline:
                return None
            time.sleep(min(_POLL_SECONDS, seconds))

    def is_free(self, former: Owner, beat: int) -> bool:
        """Return whether the lease can be taken; False while it is unclear. `beat` changes while the former owner lives.

        Raises ClusterError where another start is alive.
        """
        waited = time.monotonic() - self._began
        if former.ended or former.is_this_process():
            return True
        if former.is_on_this_machine():
            if not former.is_alive():
                return True
            if not self._is_restart_of(former) or waited > _EXIT_SECONDS:
                raise _refusal(self.run, former)
            return False
        # torchrun's --rdzv-id is any word, also of two jobs that have nothing else in common but a place.
        if self._is_restart_of(former) and (isinstance(self.run, Path) or self.job.startswith(_SLURM)):
            return True
        # Clocks of two hosts are never compared: only whether the file's time changes while this start watches.
        seen = (former.token, beat)
        if self._first_seen is None:
            self._first_seen = seen
        if self._first_seen != seen:
            raise _refusal(self.run, former)
        return waited > _MISSED_HEARTBEATS * (former.heartbeat_seconds or HEARTBEAT_SECONDS)

    def _is_restart_of(self, former: Owner) -> bool:
        """Return whether the former start was an earlier start of this job."""
        job, _, start = self.job.partition(_RESTART_MARK)
        former_job, _, former_start = former.job.partition(_RESTART_MARK)
        # Two steps of one start of a Slurm job run side by side: neither restarts the other.
        side_by_side = job.startswith(_SLURM) and start == former_start
        return bool(job) and job == former_job and not side_by_side


class Lease:
    """The right of this start to write into a run folder, from construction to `release`.

    `lost` becomes true when another start has taken over.
    """

    def __init__(self, run: Path, former_generation: int = 0, job: str = "") -> None:
        self.run, self.lost = run, False
        # The token tells two starts apart that took the same generation at the same moment.
        self.owner = this_process(former_generation + 1, secrets.token_hex(8), job, HEARTBEAT_SECONDS)
        files.write_text(run / "lease", self.owner.text())
        self._file = os.open(run / "lease", os.O_RDONLY)
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._heartbeat_loop, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise ClusterError if this start does not own the run folder any more."""
        text, _ = _read(self.run)
        if text == self.owner.text():
            return
        self.lost = True
        newer = f"start {parse_owner(text).generation} of this run has taken over"
        reason = newer if text else "its file `lease` was removed: taken over"
        raise ClusterError(
            f"{self.run}: {reason} from this one (start {self.owner.generation}); nothing was written since"
        )

    def is_current(self, recheck: bool = False) -> bool:
        """Return whether this start owns the run folder: as of a second ago, or by reading the file now."""
        if recheck:
            with suppress(OSError, ClusterError):  # an outage of the storage does not lose the lease
                self.check()
        return not self.lost

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the lease during a few renames. Nobody takes over meanwhile, if the file system has locks."""
        with _locked(self.run):
            self.check()
            yield

    def release(self) -> None:
        """Record that this start has ended, so that the next one need not wait."""
        if not self._released.is_set():
            self._released.set()
            with suppress(OSError, DataError, ClusterError), self.held():
                files.write_text(self.run / "lease", replace(self.owner, state="ended").text())
            self._thread.join()
            os.close(self._file)

    def _heartbeat_loop(self) -> None:
        """Touch the file periodically, and check that it is still this start's."""
        touched = time.monotonic()
        while not self._released.wait(_CHECK_SECONDS) and not self.lost:
            with suppress(OSError, ClusterError):  # an outage of the storage does not lose the lease
                self.check()
                if time.monotonic() - touched >= HEARTBEAT_SECONDS:
                    touched = time.monotonic()
                    # By the open file, not by name: a newer start may have just put its own file there.
                    os.utime(self._file)


def held_by_other_job(run: Path, job: str) -> bool:
    """Return whether a live start of another job trains there, as far as this host can tell."""
    former = parse_owner(_read(run)[0])
    same_job = bool(job) and former.job.partition(_RESTART_MARK)[0] == job.partition(_RESTART_MARK)[0]
    if former.ended or former.is_this_process() or same_job:
        return False
    return not former.is_on_this_machine() or former.is_alive()


def _read(run: Path) -> tuple[str, int]:
    """Return the text of the lease and its time of change in ns; ("", 0) without one."""
    try:
        # Opened anew each time: NFS shows old times of a file that stays open.
        with (run / "lease").open("rb") as file:
            return file.read(MAX_LEASE_BYTES).decode(errors="replace"), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return "", 0


def _refusal(run: Path | Place, other: Owner) -> ClusterError:
    who = f"by pid {other.pid} on host {other.host} since {other.since}"
    if isinstance(run, Path):
        mend = f"stop it, give another --out, or remove {run / 'lease'} to take the run over"
        return ClusterError(f"{run} is being trained {who}; {mend}")
    # Its lease must stay: it also says whose copies these are.
    return ClusterError(f"{run}: checkpoints are being copied there {who}; stop it, or give another --out")


@contextmanager
def _locked(run: Path) -> Iterator[None]:
    """Exclude other starts, where the file system has locks and nobody keeps one for long."""
    # A file of its own: RUN/lease is replaced by renames, and a lock belongs to the replaced file.
    handle = os.open(run / LOCK_FILE, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        # After that time go on without it: a host that died with the lock must not block the run for ever.
        while not files.try_lock(handle) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield
    finally:
        os.close(handle)
