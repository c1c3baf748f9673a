"""Names, addresses and interfaces of this host."""

from __future__ import annotations

import socket
import struct
import time

try:
    import fcntl
except ImportError:  # no Unix: interfaces are left to the libraries
    fcntl = None  # type: ignore[assignment]

_SIOCGIFADDR = 0x8915  # Linux: the IPv4 address of an interface


def resolve(host: str) -> str | None:
    """The address that this host takes `host` for, or None. IPv4 where there is one."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return None
    return min(found, key=lambda entry: entry[0] != socket.AF_INET)[4][0]  # type: ignore[return-value]


def is_loopback(address: str | None) -> bool:
    return address is not None and (address.startswith("127.") or address == "::1")


def towards(address: str) -> str | None:
    """This host's own address on the way to another, or None where there is no way. Nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return probe.getsockname()[0]
    except OSError:
        return None


def interface_of(address: str) -> str | None:
    """The interface that has an IPv4 address, or None."""
    if fcntl is None:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:  # it has none
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None


def leading_interface(seen_as: str | None, master: str) -> str | None:
    """The interface that leads to the other nodes: towards the master, or, on the master, the one where others see it.

    `seen_as`: the master's address as other hosts know it. None where it cannot be told.
    """
    for target in (resolve(master), seen_as):
        own = towards(target) if target and not is_loopback(target) else None
        if own and (name := interface_of(own)):
            return name
    return None


def wait_for(host: str, port: int, end: float) -> str | None:
    """Wait until somebody listens on another host's port, at most until `end` (time.monotonic); why it stayed in vain, or None."""
    pause = 0.05
    while True:
        why = _why_no_answer(host, port, max(1.0, min(10.0, end - time.monotonic())))
        if why is None or time.monotonic() + pause > end:
            return why
        time.sleep(pause)
        pause = min(2 * pause, 1.0)


def _why_no_answer(host: str, port: int, patience: float) -> str | None:
    """What stands between this host and another's port, in words, found out within `patience` seconds; None: nothing."""
    address, me = resolve(host), socket.gethostname()
    if address is None:
        return f"{me} knows no host of the name {host}"
    at = host if address == host else f"{host} ({address})"
    try:
        socket.create_connection((address, port), timeout=patience).close()
    except ConnectionRefusedError:
        return (
            f"{at} refuses port {port}: nobody listens there; rank 0 has not started, has ended, or is on another host"
        )
    except TimeoutError:
        return (
            f"{at} is silent on port {port}: packets are swallowed (a firewall, another network) or the machine is off"
        )
    except OSError as error:
        return f"{me} finds no way to {at}: {error.strerror}"
    return None
