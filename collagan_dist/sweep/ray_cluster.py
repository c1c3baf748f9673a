"""A Ray cluster: joining one that runs already, or one of our own on this machine; a function over many items on all of its nodes."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from collagan_dist.errors import ClusterError, ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")

_FOLDER = "collagan-ray-"  # in /tmp, then the process that owns it
_STORE = 100_000_000  # bytes of Ray's object store, through which next to nothing goes
_REACH = 10.0  # seconds for the head node to answer
_LEAVE = 60.0  # seconds for tasks that are cancelled to save


@contextmanager
def open_cluster(address: str | None) -> Iterator[Any]:
    """The ray module, connected to the cluster at `address`, or without one to a cluster of this machine's own. Raises ClusterError."""
    with join_cluster(address) if address is not None else _own() as ray:
        yield ray


@contextmanager
def _own() -> Iterator[Any]:
    """A cluster of this machine alone, which ends with this process: heard on loopback only, and by who knows its token."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault(
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"
    )  # Ray's name for: no other hosts, so listen on loopback alone
    os.environ.pop("RAY_ADDRESS", None)
    ray = _library()
    _sweep_up()
    with tempfile.TemporaryDirectory(
        prefix=f"{_FOLDER}{os.getpid()}-", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:  # short: sockets lie below
        _connect(
            ray, address="local", num_cpus=len(os.sched_getaffinity(0)), include_dashboard=False, object_store_memory=_STORE,
            _node_ip_address="127.0.0.1", _temp_dir=f"{folder}/ray",  # Ray opens its folder to everybody, not ours above it
        )  # fmt: skip
        try:
            yield ray
        finally:
            ray.shutdown()


@contextmanager
def join_cluster(address: str) -> Iterator[Any]:
    """The ray module, connected to the cluster at `address` (host:port, or auto). Raises ClusterError."""
    ray = _library()
    reached = False
    try:
        if address != "auto":  # Ray itself would try for minutes
            host, _, port = address.rpartition(":")
            if not port.isdigit():
                raise ConfigError(f"--ray {address}: give HOST:PORT, or auto")
            socket.create_connection((host, int(port)), timeout=_REACH).close()
            reached = True
        _connect(ray, address=address)
    except ray.exceptions.AuthenticationError as error:
        raise ClusterError(
            f"--ray {address}: the cluster asks for its token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH "
            f"to what its head node has ({str(error).splitlines()[0]})"
        ) from None
    except (ConnectionError, RuntimeError) as error:
        if reached:
            raise ClusterError(
                f"--ray {address}: what answers there does not let this process in: RAY_AUTH_TOKEN (or the file RAY_AUTH_TOKEN_PATH) is not the "
                f"token of that cluster, it runs another version of Ray, or it is no Ray cluster ({' '.join(str(error).split())})"
            ) from None
        raise _nobody(address, error) from None
    except OSError as error:
        raise _nobody(address, error) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _nobody(address: str, error: Exception) -> ClusterError:
    return ClusterError(
        f"--ray {address}: no Ray cluster answers there; start one with `ray start --head` on one node and "
        f"`ray start --address=...` on the others ({str(error).splitlines()[0]})"
    )


def _sweep_up() -> None:
    """Remove what killed processes left of their clusters."""
    for path in Path("/tmp").glob(f"{_FOLDER}*"):
        process = path.name.removeprefix(_FOLDER).partition("-")[0]
        with suppress(OSError):  # another start sweeps, too
            if not Path("/proc", process).exists() and path.stat().st_uid == os.geteuid():
                shutil.rmtree(path, ignore_errors=True)


def _connect(ray: Any, **options: Any) -> None:
    asked_to_end = signal.getsignal(signal.SIGTERM)
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    signal.signal(signal.SIGTERM, asked_to_end)  # Ray has put a handler of its own there, which ends at once


def _library() -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError("this needs Ray, which is not installed: pip install 'collagan_dist[sweep]'") from None
    return ray


def ray_map(
    address: str, function: Callable[[Item], Result], items: Iterable[Item], gpus: int = 0
) -> Iterator[tuple[Item, Result]]:
    """(item, function(item)) of every item, as they are done, each on one CPU of the cluster and, where it has any, `gpus` GPUs.

    A task whose node is lost runs again on another, ten times at most; an error of `function` is raised here and ends the others.
    """
    with join_cluster(address) as ray:
        gpus = gpus if ray.cluster_resources().get("GPU") else 0
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=10)(function)
        waiting = {task.remote(item): item for item in items}
        try:
            while waiting:
                for done in ray.wait(list(waiting))[0]:
                    yield waiting.pop(done), ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise ClusterError(f"--ray {address}: {str(error).splitlines()[0]}; the same command continues") from None
        finally:
            for left in waiting:
                ray.cancel(left, force=False)
            if waiting:
                ray.wait(list(waiting), num_returns=len(waiting), timeout=_LEAVE)
