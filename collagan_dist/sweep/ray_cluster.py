"""Connections to a Ray cluster: one that runs already, or one of this machine alone; and a parallel map over its nodes."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from collagan_dist import files
from collagan_dist.errors import ClusterError, ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)

_DASHBOARD_PARTS = (
    "aiohttp_cors",
    "colorful",
    "opencensus",
    "opentelemetry",
    "prometheus_client",
    "smart_open",
    "virtualenv",
)  # of ray[default]
_FOLDER_PREFIX = "collagan-ray-"  # in /tmp; the id of the process that owns the folder follows
_STORE_BYTES = 100_000_000  # Ray's object store, by default 30 % of memory; it holds next to nothing here
_CONNECT_SECONDS = 10.0  # for the head node to answer
_CANCEL_SECONDS = 60.0  # for cancelled tasks to save and end


@contextmanager
def open_cluster(address: str | None, dashboard: bool = False, imports: Sequence[str] = ()) -> Iterator[Any]:
    """Yield the ray module, connected to the cluster at `address`, or to a new one of this machine alone. Raises ClusterError.

    `dashboard` starts that of the new one (see `check_dashboard`), whose worker processes have `imports` (modules) before their
    first task, as far as these can be imported.
    """
    with join_cluster(address) if address is not None else _local_cluster(dashboard, imports) as ray:
        yield ray


def check_dashboard(address: str | None) -> None:
    """Raise ConfigError where a sweep cannot start Ray's dashboard."""
    if address is not None:
        hint = "look at its own (port 8265 of its head node), or leave --dashboard out"
        raise ConfigError(
            f"--dashboard: is of a cluster that the sweep starts, and --ray {address} runs already; {hint}"
        )
    if missing := [name for name in _DASHBOARD_PARTS if find_spec(name) is None]:
        raise ConfigError(
            f"--dashboard: parts of Ray that it needs are not installed here ({', '.join(missing)}): pip install 'collagan_dist[dashboard]'"
        )


@contextmanager
def _local_cluster(dashboard: bool = False, imports: Sequence[str] = ()) -> Iterator[Any]:
    """Start a cluster that ends with this process, listens on loopback only and accepts only who knows its token."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Despite its name this is what makes Ray listen on loopback alone: it says that no other host will join.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.pop("RAY_ADDRESS", None)  # would join that cluster instead
    if imports:
        os.environ.setdefault("RAY_preload_python_modules", ",".join(imports))
    ray = _import_ray()
    _remove_leftovers()
    # /tmp: the path of a Unix socket has at most 107 characters, and Ray's sockets lie deep below this folder.
    prefix, place = f"{_FOLDER_PREFIX}{os.getpid()}-", "/tmp"
    files.check_temporary(Path(place), "Ray")
    with files.temporary_folder(prefix, place) as folder:
        url = _connect(
            ray, address="local", num_cpus=len(os.sched_getaffinity(0)), object_store_memory=_STORE_BYTES,
            include_dashboard=dashboard, dashboard_host="127.0.0.1", _node_ip_address="127.0.0.1",
            _temp_dir=f"{folder}/ray",  # Ray opens its folder to everybody, not ours above it
        )  # fmt: skip
        try:
            if dashboard:
                logger.info(f"dashboard: http://{url}\nits token: {os.environ['RAY_AUTH_TOKEN']}")
            yield ray
        finally:
            ray.shutdown()


@contextmanager
def join_cluster(address: str) -> Iterator[Any]:
    """Yield the ray module, connected to the running cluster at `address` (host:port, or auto). Raises ClusterError."""
    ray = _import_ray()
    reached = False
    try:
        # Ray itself would try for minutes to reach a host that is not there.
        if address != "auto":
            host, _, port = address.rpartition(":")
            if not port.isdigit():
                raise ConfigError(f"--ray {address}: give HOST:PORT, or auto")
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
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
        raise _no_cluster(address, error) from None
    except OSError as error:
        raise _no_cluster(address, error) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _no_cluster(address: str, error: Exception) -> ClusterError:
    return ClusterError(
        f"--ray {address}: no Ray cluster answers there; start one with `ray start --head` on one node and "
        f"`ray start --address=...` on the others ({str(error).splitlines()[0]})"
    )


def _remove_leftovers() -> None:
    """Remove the folders of clusters whose processes were killed."""
    for path in Path("/tmp").glob(f"{_FOLDER_PREFIX}*"):
        process = path.name.removeprefix(_FOLDER_PREFIX).partition("-")[0]
        with suppress(OSError):  # another start may remove the same folder
            if not Path("/proc", process).exists() and path.stat().st_uid == os.geteuid():
                shutil.rmtree(path, ignore_errors=True)


def _connect(ray: Any, **options: Any) -> str:
    """Connect, and return the address of the dashboard, "" without one."""
    # Ray's own processes inherit that SIGHUP is ignored: when the terminal goes away, trials can still save.
    hangup, term = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.getsignal(signal.SIGTERM)
    try:
        return ray.init(log_to_driver=False, logging_level=logging.ERROR, **options).dashboard_url or ""
    finally:
        # Ray installs a handler of SIGTERM that exits at once; ours lets trials save first.
        signal.signal(signal.SIGTERM, term)
        signal.signal(signal.SIGHUP, hangup)


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError("this needs Ray, which is not installed: pip install 'collagan_dist[sweep]'") from None
    return ray


def ray_map(
    address: str, function: Callable[[Item], Result], items: Iterable[Item], gpus: int = 0
) -> Iterator[tuple[Item, Result]]:
    """Yield (item, function(item)) as tasks finish, each on one CPU of the cluster and `gpus` GPUs where it has any.

    A task whose node is lost runs again on another one. An error of `function` is raised here, and the other tasks are cancelled.
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
                ray.wait(list(waiting), num_returns=len(waiting), timeout=_CANCEL_SECONDS)
