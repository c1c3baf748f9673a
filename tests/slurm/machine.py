"""A machine inside this one: a hostname, processes, mounts and a network of its own, by Linux namespaces.

All of it hangs on process 1 of its PID namespace: the kernel ends every process when that one ends, and the network, its
cable and the mounts vanish with the last of them. So a power cut is one signal, and nothing can be left behind.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

# pdeathsig, kill-child: when the test process is killed itself, its machines go with it.
ISOLATED = ["setpriv", "--pdeathsig", "KILL", "unshare", "--uts", "--mount", "--net", "--pid", "--fork", "--kill-child"]
# Arguments: hostname, hosts file, command. Nothing starts before the network is there, which a line on stdin says.
# The shell stays as process 1: it reaps what daemons leave behind.
BOOT = """
hostname "$1"
mount --bind "$2" /etc/hosts
mount -t tmpfs shm /dev/shm
mount -t tmpfs ray /tmp/ray
shift 2
read -r _
"$@"
exit $?
"""
SECONDS_TO_BOOT = 10


class Machine:
    """A running machine, without a network until `connect` or `switch`; `start` lets its command run.

    `hosts` becomes its /etc/hosts; /dev/shm and the existing folder /tmp/ray are its own; all other files are everybody's,
    as on a cluster. What the command prints is added to `log`.
    """

    def __init__(self, name: str, hosts: Path, command: Sequence[object], log: Path, env: Mapping[str, str]) -> None:
        self.name = name
        boot = [*ISOLATED, "--mount-proc", "sh", "-ec", BOOT, "sh", name, hosts, *command]
        with log.open("ab") as out:
            self._holder = subprocess.Popen(
                list(map(str, boot)), stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True, env=env
            )
        try:
            self.init = _child(self._holder, log)
            self._init_fd = os.pidfd_open(self.init)
        except BaseException:
            self._holder.kill()
            self._holder.wait()
            raise

    def switch(self, address: str) -> None:
        """Put the switch here that the cables of the others lead to."""
        self.ip("link set lo up", "link add switch type bridge", f"addr add {address} dev switch", "link set switch up")

    def connect(self, to: Machine, address: str) -> None:
        """Lay a cable to the machine with the switch. `address`: IPv4 with its mask."""
        # A machine that comes back has the address that its neighbours remember.
        mac = "02:00:" + ":".join(f"{int(x):02x}" for x in address.split("/")[0].split("."))
        to.ip(
            f"link add {self.name} type veth peer name eth0 address {mac} netns {self.init}",
            f"link set {self.name} master switch up",
        )
        self.ip("link set lo up", f"addr add {address} dev eth0", "link set eth0 up")

    def disconnect(self, name: str) -> None:
        """Take away the cable of a machine that is gone; the kernel would do it some time later."""
        with suppress(RuntimeError):
            self.ip(f"link del {name}")

    def start(self) -> None:
        assert self._holder.stdin
        self._holder.stdin.write(b"\n")
        self._holder.stdin.close()

    def ip(self, *commands: str) -> None:
        """ip(8) in this machine's network. Process ids in `commands` are those of the test's."""
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{self.init}/ns/net", "ip", "-batch", "-"],
            input="\n".join(commands), text=True, capture_output=True,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"network of {self.name}: {done.stderr.strip()}")

    def inside(self, *command: object) -> list[str]:
        """The command line that runs `command` in all namespaces of this machine."""
        return ["nsenter", f"--target={self.init}", "--uts", "--mount", "--net", "--pid", *map(str, command)]

    def client(self, *command: object) -> list[str]:
        """The command line that runs `command` on this machine's network, with the files and processes of the test."""
        return ["nsenter", f"--target={self.init}", "--uts", "--net", *map(str, command)]

    @property
    def alive(self) -> bool:
        return not select.select([self._init_fd], [], [], 0)[0]

    def kill(self) -> None:
        """The power goes. Returns when no process is left."""
        if self._init_fd < 0:
            return
        if self.alive:
            signal.pidfd_send_signal(self._init_fd, signal.SIGKILL)
        select.select([self._init_fd], [], [])  # process 1 ends after all others are reaped
        os.close(self._init_fd)
        self._init_fd = -1
        self._holder.communicate()


def _child(parent: subprocess.Popen[bytes], log: Path) -> int:
    """The process id of the one child of `parent`: unshare's, which is process 1 inside."""
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    end = time.monotonic() + SECONDS_TO_BOOT
    while parent.poll() is None and time.monotonic() < end:
        if pids := children.read_text().split():
            return int(pids[0])
        time.sleep(0.005)
    raise RuntimeError(f"no machine of its own: {log.read_text()[-2000:]}")


def missing(*programs: str) -> str | None:
    """Why this machine cannot hold others that run `programs`; None when it can."""
    needed = ["setpriv", "unshare", "nsenter", "ip", *programs]
    if lacking := [p for p in needed if shutil.which(p) is None]:
        return f"not installed: {', '.join(lacking)}"
    if os.geteuid() != 0:
        return "namespaces and daemons need root"
    tried = subprocess.run([*ISOLATED, "--mount-proc", "true"], capture_output=True, text=True)
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else None
