"""Who trains into a run folder: one process, told so that another start can see whether it still lives."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

_SHOWN = ("host", "pid", "born", "machine", "job", "since", "beat", "state")


@dataclass(frozen=True)
class Owner:
    """A start of a run. `machine` and `born` make `pid` one process of all that ever were."""

    generation: int
    token: str = ""
    host: str = ""
    pid: int = 0
    born: str = ""
    machine: str = ""
    job: str = ""
    since: str = ""
    beat: float = 0.0
    state: str = "ended"

    @property
    def ended(self) -> bool:
        return self.state != "running"

    def is_me(self) -> bool:
        return (self.machine, self.pid, self.born) == (_machine(), os.getpid(), _born(os.getpid()))

    def is_here(self) -> bool:
        """Whether its process could be seen from here."""
        return self.machine == _machine()

    def is_alive(self) -> bool:
        """Whether its process still runs; only for one that is here."""
        return bool(self.born) and _born(self.pid) == self.born

    def text(self) -> str:
        """Readable; the first word is the generation."""
        values = asdict(self)
        return "\n".join([f"{self.generation} {self.token}", *(f"{key} {values[key]}" for key in _SHOWN)]) + "\n"


def me(generation: int, token: str, job: str, beat: float) -> Owner:
    pid = os.getpid()
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return Owner(generation, token, socket.gethostname(), pid, _born(pid), _machine(), job, since, beat, "running")


def parse(text: str) -> Owner:
    """An owner from its text; what cannot be read has ended, and is of generation 0."""
    first, *rest = text.splitlines() or [""]
    words = first.split()
    if not words or not words[0].isdigit():
        return Owner(0)
    kinds = {field.name: str(field.type) for field in fields(Owner)}
    convert = {"int": int, "float": float, "str": str}
    values = {}
    for key, _, value in (line.partition(" ") for line in rest):
        if key in _SHOWN:
            try:
                values[key] = convert[kinds[key]](value)
            except ValueError:
                return Owner(int(words[0]), " ".join(words[1:]))
    return Owner(int(words[0]), " ".join(words[1:]), **values)


def _machine() -> str:
    """This start of this machine, and what of it a container sees; the host's name where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _born(pid: int) -> str:
    """When a process began, in the system's ticks; "" when it is gone, or dead and not yet buried."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return "" if Path("/proc/self").exists() else _answers(pid)
    except OSError:
        return ""
    return "" if state in "ZX" else rest[18]


def _answers(pid: int) -> str:
    """The same on systems without /proc, which only say whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"
