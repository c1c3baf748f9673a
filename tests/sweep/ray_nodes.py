"""Real Ray nodes on this machine, as processes of their own."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

RAY = Path(sys.executable).with_name("ray")
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}


@contextmanager
def ray_nodes(count: int, cpus: int = 1) -> Iterator[str]:
    """The address of a cluster of `count` nodes of `cpus` CPUs each; ended with everything they started."""
    with ray_cluster(count, cpus) as (address, _):
        yield address


@contextmanager
def ray_cluster(count: int, cpus: int = 1) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """The same, with the process of each node: the head first."""
    address = f"127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:  # short: Ray's sockets lie below
        head = ["--head", f"--port={address.split(':')[1]}", "--include-dashboard=false", f"--temp-dir={folder}"]
        nodes: list[subprocess.Popen] = []
        try:
            for number in range(count):
                where = head if number == 0 else [f"--address={address}"]
                nodes.append(start(*where, f"--num-cpus={cpus}", "--object-store-memory=100000000"))
                wait_for(address, number + 1)
            yield address, nodes
        finally:
            for node in reversed(nodes):
                with suppress(ProcessLookupError):
                    os.killpg(node.pid, signal.SIGTERM)
                try:
                    node.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(node.pid, signal.SIGKILL)


def power_off(node: subprocess.Popen) -> None:
    """A node is gone in a moment, with all that runs on it."""
    family = descendants(node.pid)
    for process in family:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    node.wait()


def descendants(process: int) -> list[int]:
    """A process and all below it."""
    found = [process]
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        found += [pid for child in path.read_text().split() for pid in descendants(int(child))]
    return found


def start(*options: str) -> subprocess.Popen:
    return subprocess.Popen(
        [RAY, "start", "--block", "--disable-usage-stats", *options], env={**os.environ, **QUIET}, start_new_session=True, cwd="/",
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def wait_for(address: str, nodes: int) -> None:
    """Until so many nodes have joined."""
    code = (
        "import ray, sys, time\n"
        "ray.init(address=sys.argv[1], log_to_driver=False, logging_level=40)\n"
        "while sum(n['Alive'] for n in ray.nodes()) < int(sys.argv[2]): time.sleep(0.2)"
    )
    last = time.monotonic() + 120
    while True:
        done = subprocess.run(
            [sys.executable, "-c", code, address, str(nodes)],
            env={**os.environ, **QUIET},
            capture_output=True,
            timeout=120,
        )
        if done.returncode == 0:
            return
        assert time.monotonic() < last, done.stderr.decode()[-2000:]
        time.sleep(1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
