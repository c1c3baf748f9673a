"""Process identity in RUN/lease: host, boot id, pid and start time of the process that trains into a run folder."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, fields
from pathlib import Path

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

    generation: int
    token: str = ""
    host: str = ""
    pid: int = 0
    process_start: str = ""
    machine: str = ""
    job: str = ""
    since: str = ""
    heartbeat_seconds: float = 0.0
    state: str = "ended"

    @property
    def ended(self) -> bool:
        return self.state != "running"

    def is_this_process(self) -> bool:
        pid = os.getpid()
        return (self.machine, self.pid, self.process_start) == (machine_id(), pid, process_start_time(pid))

    def is_on_this_machine(self) -> bool:
        """Return whether the process could be seen from here."""
        return self.machine == machine_id()

    def is_alive(self) -> bool:
        """Return whether the process still runs. Only valid on its own machine."""
        return bool(self.process_start) and process_start_time(self.pid) == self.process_start

    def text(self) -> str:
        """Return the content of RUN/lease. The first word is the generation, for people and shell scripts."""
        lines = [f"{word} {getattr(self, name)}" for word, name in _FIELDS.items()]
        return "\n".join([f"{self.generation} {self.token}", *lines]) + "\n"


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
    words = first.split()
    if not words or not words[0].isdigit():
        return Owner(0)
    kinds = {field.name: str(field.type) for field in fields(Owner)}
    convert = {"int": int, "float": float, "str": str}
    values = {}
    for word, _, value in (line.partition(" ") for line in rest):
        # Words of newer programs are ignored: a run folder may meet two versions.
        if (name := _FIELDS.get(word)) is not None:
            try:
                values[name] = convert[kinds[name]](value)
            except ValueError:
                return Owner(int(words[0]), " ".join(words[1:]))
    return Owner(int(words[0]), " ".join(words[1:]), **values)


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
