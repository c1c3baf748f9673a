import socket
import threading
import time

from collagan_dist.distributed import addresses
from tests.faults.processes import free_port


def test_names_and_interfaces():
    assert addresses.resolve("localhost") == "127.0.0.1" and addresses.resolve("no-such-host.invalid") is None
    assert addresses.is_loopback("127.0.1.1") and addresses.is_loopback("::1")
    assert not any(map(addresses.is_loopback, ("10.0.0.1", "127.0.0.1.example.org", "localhost", None)))
    assert addresses.source_address("127.0.0.1") == "127.0.0.1"
    assert addresses.interface_with_address("127.0.0.1") == "lo"
    assert addresses.interface_with_address("192.0.2.1") is None  # an address of nobody's (RFC 5737)
    assert addresses.route_interface(None, "localhost") is None  # loopback leads to no other node


def test_a_listener_that_comes_late_is_found():
    with socket.socket() as late:
        late.bind(("127.0.0.1", 0))
        port = late.getsockname()[1]
        timer = threading.Timer(0.3, late.listen)
        timer.start()
        assert addresses.wait_for_listener("127.0.0.1", port, time.monotonic() + 20) is None
        timer.join()


def test_why_no_listener_is_found():
    port = free_port()
    why = addresses.wait_for_listener("127.0.0.1", port, time.monotonic() + 0.2)
    assert why is not None and why.startswith(f"127.0.0.1 refuses port {port}: nobody listens there")
    why = addresses.wait_for_listener("no-such-host.invalid", port, time.monotonic())
    assert why == f"{socket.gethostname()} knows no host of the name no-such-host.invalid"
