import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from collagan_dist.doctor import listeners
from collagan_dist.doctor.listeners import check_ports, find_listeners, program
from tests.faults.processes import free_port

LISTEN = "import socket; s = socket.create_server(({address!r}, {port}), family={family}); print('there', flush=True); input()"


@contextmanager
def listening(address: str, name: str = "ray::trial") -> Iterator[tuple[int, int]]:
    """(process id, port) of a process that listens there, as a worker of Ray by its name."""
    port, family = free_port(), int(socket.AF_INET6 if ":" in address else socket.AF_INET)
    words = [name, "-c", LISTEN.format(address=address, port=port, family=family)]
    child = subprocess.Popen(words, executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout and child.stdout.readline() == b"there\n"
        yield child.pid, port
    finally:
        child.kill()
        child.communicate()


def finding(pid):
    """What `doctor` says of one process. (Others may run on this machine.)"""
    (found,) = check_ports()
    return found.state, next(
        (part for part in re.split("; |all interfaces: ", found.text) if f"(pid {pid})" in part), ""
    )


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.1.1", "::1", "0.0.0.0", "::"])
def test_addresses_are_read_as_they_are(address):
    with listening(address) as (pid, port):
        assert [(one.address, one.port) for one in find_listeners() if one.pid == pid] == [(address, port)]
        state, text = finding(pid)
    if address in ("0.0.0.0", "::"):
        assert state == "warning" and text == f"ray (pid {pid}) at port {port}"
    else:
        assert text == f"ray (pid {pid}) at port {port} on {address} (this host alone)"


def test_nothing_but_ours_is_shown():
    """Neither this process nor another program; what has ended is gone."""
    with socket.create_server(("0.0.0.0", 0)), listening("0.0.0.0", sys.executable) as (pid, _):
        assert finding(pid)[1] == ""
    with ExitStack() as stack:
        ports = [stack.enter_context(listening("127.0.0.1")) for _ in range(2)]
        assert {pid for pid, _ in ports} <= {one.pid for one in find_listeners()}
    assert not {pid for pid, _ in ports} & {one.pid for one in find_listeners()}


def test_many_ports_of_one_process_are_counted(monkeypatch):
    monkeypatch.setattr(
        listeners, "find_listeners", lambda: [listeners.Listener("ray", 7, "127.0.0.1", n) for n in range(9)]
    )
    (found,) = check_ports()
    assert (found.state, found.text) == (
        "ok",
        "ray (pid 7) at port 0, 1, 2, 3 and 5 more on 127.0.0.1 (this host alone)",
    )


def test_the_agent_of_torchrun_listens_to_everybody():
    """Which no option of it changes. It waits for its second node here."""
    port = free_port()
    where = ["--nnodes", "2", "--node-rank", "0", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    agent = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *where, "-m", "--", "collagan_dist", "doctor"]
    )
    try:
        end = time.monotonic() + 60
        while not (mine := [one for one in find_listeners() if one.pid == agent.pid]) and time.monotonic() < end:
            time.sleep(0.1)
        assert [(one.name, one.port, one.on_all_interfaces) for one in mine] == [("torchrun", port, True)]
        assert finding(agent.pid) == ("warning", f"torchrun (pid {agent.pid}) at port {port}")
    finally:
        agent.kill()
        agent.wait()


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["/venv/bin/python", "/venv/bin/collagan", "train", "demo"], "collagan train"),
        (["collagan"], "collagan"),
        (["python", "-u", "-m", "collagan_dist", "evaluate", "run"], "collagan evaluate"),
        (["python", "/venv/bin/torchrun", "--nnodes=2", "-m", "--", "collagan_dist", "train"], "torchrun"),
        (["python", "-m", "torch.distributed.run", "--nnodes", "2", "-m", "--", "collagan_dist", "train"], "torchrun"),
        (["ray::ImplicitFunc.train"], "ray"),
        (["/venv/lib/python3.11/site-packages/ray/core/src/ray/raylet/raylet", "--port=1"], "ray"),
        (["python", "-u", "/venv/lib/python3.11/site-packages/ray/dashboard/agent.py"], "ray"),
        (["python", "/venv/bin/torchrun", "other.py"], ""),
        (["srun", "bash", "-c", "exec", "bash", "collagan", "train"], ""),
        (["vim", "--", "collagan"], ""),
        (["/home/ray/python", "server.py"], ""),
        ([], ""),
    ],
)  # fmt: skip
def test_whose_command_line_it_is(words, name):
    assert program("".join(f"{word}\0" for word in words)) == name
