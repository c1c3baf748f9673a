"""Which processes of ours listen for connections on this machine, and who can reach them. By /proc, so on Linux alone."""

from __future__ import annotations

import ipaddress
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from collagan_dist.distributed import addresses
from collagan_dist.doctor.finding import Finding, ok, warning

_LISTEN = "0A"  # the state's number in /proc/net/tcp
# Command lines of our programs, and in a group the command of `collagan`: first words are an interpreter and its script.
_PROGRAMS = {
    "ray": re.compile(r"^ray::|^(?:[^\0]*/)?(?:raylet|gcs_server)\0|/site-packages/ray/"),
    "torchrun": re.compile(
        r"^(?:[^\0]*\0)?(?:(?:[^\0]*/)?torchrun|-m\0torch\.distributed\.run)\0.*\0collagan_dist\0", re.DOTALL
    ),
    "collagan": re.compile(r"(?:^(?:[^\0]*\0)?(?:[^\0]*/)?collagan|\0-m\0collagan_dist)\0([^\0]*)"),
}
_MAX_PORTS = 4  # shown of one process
_MEND = "whoever reaches this host reaches them: let a firewall keep strangers out; docs/security.md says who gets in, and what opens less"


@dataclass(frozen=True)
class Listener:
    """A process of ours and an address where it listens. `name`: as `collagan train`, `torchrun`, `ray`."""

    name: str
    pid: int
    address: str
    port: int

    @property
    def on_all_interfaces(self) -> bool:
        return ipaddress.ip_address(self.address).is_unspecified


def find_listeners(proc: Path = Path("/proc")) -> list[Listener]:
    """Return what collagan, its torchrun and Ray listen on in this host's (or container's) network.

    Processes of other users are seen by root alone.
    """
    sockets = {inode: place for table in ("tcp", "tcp6") for inode, place in _listening(proc / "net" / table)}
    found = set()
    for folder in proc.glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            name = program((folder / "cmdline").read_text(errors="replace"))
            for link in (folder / "fd").iterdir() if name else ():
                with suppress(OSError):  # closed meanwhile
                    inode = re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink()))
                    if inode and inode[1] in sockets:
                        found.add(Listener(name, int(folder.name), *sockets[inode[1]]))
    return sorted(found, key=lambda listener: (listener.pid, listener.address, listener.port))


def program(command_line: str) -> str:
    """Return which program of ours a command line starts, as /proc has it (a NUL behind each word); "" for others."""
    for name, pattern in _PROGRAMS.items():
        if found := pattern.search(command_line):
            return " ".join([name, *filter(None, found.groups())])
    return ""


def _listening(table: Path) -> Iterator[tuple[str, tuple[str, int]]]:
    """Yield inode, address and port of every socket that waits for connections."""
    with suppress(OSError):  # no IPv6
        for line in table.read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == _LISTEN:
                number, _, port = local.partition(":")
                # Words of 4 bytes, each in the machine's order, which is little-endian on all that torch runs on.
                words = [bytes.fromhex(number[i : i + 8])[::-1] for i in range(0, len(number), 8)]
                yield inode, (str(ipaddress.ip_address(b"".join(words))), int(port, 16))


def check_ports() -> Iterator[Finding]:
    """Show what of ours listens here. On all interfaces it is a warning."""
    found = find_listeners()
    everywhere = [listener for listener in found if listener.on_all_interfaces]
    if everywhere:
        here = [listener for listener in found if not listener.on_all_interfaces]
        text = f"on all interfaces: {_by_process(everywhere)}" + (f"; {_by_process(here)}" if here else "")
        yield warning("ports", text, _MEND)
    else:
        yield ok("ports", _by_process(found) or "no process of ours listens here")


def _by_process(listeners: list[Listener]) -> str:
    ports = defaultdict(list)
    for one in listeners:
        ports[one.name, one.pid, "" if one.on_all_interfaces else one.address].append(one.port)
    texts = []
    for (name, pid, address), numbers in ports.items():
        more = f" and {len(numbers) - _MAX_PORTS} more" if len(numbers) > _MAX_PORTS else ""
        where = f" on {address} ({_who(address)})" if address else ""
        texts.append(f"{name} (pid {pid}) at port {', '.join(map(str, numbers[:_MAX_PORTS]))}{more}{where}")
    return "; ".join(texts)


def _who(address: str) -> str:
    if addresses.is_loopback(address):
        return "this host alone"
    return f"who reaches {addresses.interface_with_address(address) or 'that address'}"
