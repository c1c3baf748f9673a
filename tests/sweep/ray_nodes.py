"""Real Ray nodes on this machine, as processes of their own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

from tests.faults.processes import free_port

ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
WAIT_FOR_NODES = """
import ray, sys, time
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=40)
while sum(n['Alive'] for n in ray.nodes()) < int(sys.argv[2]): time.sleep(0.2)
"""


@contextmanager
def ray_nodes(count: int, cpus: int = 1) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """The address of a cluster of `count` nodes of `cpus` CPUs each, and the nodes' processes, the head first.

    Inside, the environment is that of the cluster's clients. At the end everything that the nodes started has ended.
    """
    port = free_port()
    address = f"127.0.0.1:{port}"
    # A short path: Ray's sockets lie below.
    with patch.dict(os.environ, ENVIRONMENT), tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        head = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}"]
        nodes: list[subprocess.Popen] = []
        try:
            for number in range(count):
                nodes.append(start_node(cpus, *(head if number == 0 else [f"--address={address}"])))
                wait_for(address, number + 1)  # nodes that start at the same time may choose the same ports
            yield address, nodes
        finally:
            for node in reversed(nodes):
                with suppress(ProcessLookupError):
                    os.killpg(node.pid, signal.SIGTERM)
                try:
                    node.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(node.pid, signal.SIGKILL)


HEAD_ID = 51 * "f" + "00000"  # Ray's fake provider knows the head node by the id that it is started with
AUTOSCALING = {
    "cluster_name": "test", "upscaling_speed": 1.0, "idle_timeout_minutes": 0.1, "head_node_type": "ray.head.default",
    # The class by its name: the defaults that Ray reads for its own name of it are not in its wheels.
    "provider": {
        "type": "external", "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "head_node_id": HEAD_ID, "launch_multiple": True, "disable_node_updaters": True, "disable_launch_config_check": True,
    },
    "auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": [], "file_mounts_sync_continuously": False,
    "rsync_exclude": [], "rsync_filter": [], "initialization_commands": [], "setup_commands": [], "head_setup_commands": [],
    "worker_setup_commands": [], "head_start_ray_commands": [], "worker_start_ray_commands": [],
}  # fmt: skip


@contextmanager
def growing_nodes(cpus: int, most: int, every: int = 1) -> Iterator[tuple[str, subprocess.Popen]]:
    """A head node of 1 CPU whose autoscaler starts up to `most` nodes of `cpus` CPUs; its address, and its process.

    The autoscaler looks every `every` seconds.
    Ray's own provider for tests. `AutoscalingCluster` would end every Ray process of the machine.
    """
    types = {"ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0}}
    types["worker"] = {
        "resources": {"CPU": cpus, "object_store_memory": 100_000_000},
        "node_config": {},
        "max_workers": most,
    }
    port = free_port()
    own = {"AUTOSCALER_UPDATE_INTERVAL_S": str(every), "RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1"}
    own |= {"RAY_CLOUD_INSTANCE_ID": HEAD_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID}
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        config = Path(folder, "cluster.json")
        provider = AUTOSCALING["provider"] | {"gcs_address": f"127.0.0.1:{port}"}
        config.write_text(
            json.dumps(AUTOSCALING | {"provider": provider, "available_node_types": types, "max_workers": most})
        )
        with patch.dict(os.environ, ENVIRONMENT):
            head = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}"]
            with patch.dict(os.environ, own):
                node = start_node(1, *head, f"--autoscaling-config={config}")
            try:
                wait_for(f"127.0.0.1:{port}", 1)
                yield f"127.0.0.1:{port}", node
            finally:
                power_off(node)


def power_off(node: subprocess.Popen) -> None:
    """End a node at once, with all that runs on it."""
    for process in descendants(node.pid):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    node.wait()


def descendants(process: int) -> list[int]:
    found = [process]
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        found += [pid for child in path.read_text().split() for pid in descendants(int(child))]
    return found


def start_node(cpus: int, *options: str) -> subprocess.Popen:
    words = ["--block", "--disable-usage-stats", f"--num-cpus={cpus}", "--object-store-memory=100000000", *options]
    return subprocess.Popen(
        [Path(sys.executable).with_name("ray"), "start", *words], start_new_session=True, cwd="/",
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def wait_for(address: str, nodes: int) -> None:
    last = time.monotonic() + 120
    while True:
        command = [sys.executable, "-c", WAIT_FOR_NODES, address, str(nodes)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode == 0:
            return
        assert time.monotonic() < last, done.stderr[-2000:]
        time.sleep(1)
