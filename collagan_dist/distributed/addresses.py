"""Host names, addresses and network interfaces of this host."""

from __future__ import annotations

import ipaddress
import socket
import struct
import time
from collections.abc import Iterable

try:
    import fcntl
except ImportError:  # not a Unix: the libraries choose the interface
    fcntl = None  # type: ignore[assignment]

_SIOCGIFADDR = 0x8915  # Linux ioctl: the IPv4 address of an interface
_DISCARD_PORT = 9
_MAX_PAUSE_SECONDS = 1.0
_MAX_CONNECT_SECONDS = 10.0


def resolve(host: str) -> str | None:
    """Return the address that `host` means on this host, IPv4 if it has one; None if the name is unknown."""
    try:
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return None
    # gloo's interfaces are found by IPv4 address, so IPv4 comes first.
    return min(entries, key=lambda entry: entry[0] != socket.AF_INET)[4][0]  # type: ignore[return-value]


def is_loopback(address: str | None) -> bool:
    """Return whether an address reaches this machine alone. A name never does, whatever it begins with."""
    try:
        return address is not None and ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def source_address(target: str) -> str | None:
    """Return this host's own address on the route to `target`; None without a route."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # Connecting a UDP socket sends nothing; it only looks up the route.
            probe.connect((target, _DISCARD_PORT))
            return probe.getsockname()[0]
    except OSError:
        return None


def route_address(targets: Iterable[str]) -> str | None:
    """Return this host's address on the way to the first of `targets` that is not on this host; None if there is none."""
    found = (source_address(target) for target in targets if not is_loopback(target))
    return next((address for address in found if address and not is_loopback(address)), None)


def free_port() -> int:
    """Return a port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def interface_with_address(address: str) -> str | None:
    """Return the interface that has an IPv4 address, or None."""
    if fcntl is None:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:  # it has no IPv4 address
                continue
            # struct ifreq: 16 bytes of name, then a sockaddr_in whose address begins at its byte 4.
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None


def route_interface(master_seen_as: str | None, master: str) -> str | None:
    """Return the interface that leads to the other nodes, or None if it is unknown.

    `master_seen_as`: the master's address as other hosts know it. On the master itself its own name means loopback, so
    the interface with that address is taken there.
    """
    for target in (resolve(master), master_seen_as):
        own = source_address(target) if target and not is_loopback(target) else None
        if own and (name := interface_with_address(own)):
            return name
    return None


def wait_for_listener(host: str, port: int, end: float) -> str | None:
    """Wait until a process listens on another host's port, until `end` (time.monotonic). Return what failed, or None."""
    pause = 0.05
    while True:
        # The connection's timeout is bounded, so that packets dropped for a moment do not cost the whole time.
        left = end - time.monotonic()
        why = _connection_failure(host, port, max(1.0, min(_MAX_CONNECT_SECONDS, left)))
        if why is None or time.monotonic() + pause > end:
            return why
        time.sleep(pause)
        pause = min(2 * pause, _MAX_PAUSE_SECONDS)


def _connection_failure(host: str, port: int, timeout: float) -> str | None:
    """Return why this host cannot connect to a port of another; None if it can."""
    address, here = resolve(host), socket.gethostname()
    if address is None:
        return f"{here} knows no host of the name {host}"
    target = host if address == host else f"{host} ({address})"
    try:
        socket.create_connection((address, port), timeout=timeout).close()
    except ConnectionRefusedError:
        return f"{target} refuses port {port}: nobody listens there; rank 0 has not started, has ended, or is on another host"
    except TimeoutError:
        return f"{target} is silent on port {port}: packets are dropped (a firewall, another network) or the machine is off"
    except OSError as error:
        return f"{here} finds no route to {target}: {error.strerror}"
    return None
