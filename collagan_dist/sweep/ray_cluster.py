"""A Ray cluster that runs already: joining it, and a function over many items on all of its nodes."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from collagan_dist.errors import ClusterError, ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")

_REACH = 10.0  # seconds for the head node to answer
_LEAVE = 60.0  # seconds for tasks that are cancelled to save


@contextmanager
def joined(address: str) -> Iterator[Any]:
    """The ray module, connected to the cluster at `address` (host:port, or auto). Raises ClusterError."""
    try:
        import ray
    except ImportError:
        raise ConfigError("--ray needs Ray, which is not installed: pip install 'collagan_dist[ray]'") from None
    try:
        if address != "auto":  # Ray itself would try for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=_REACH).close()
        asked_to_end = signal.getsignal(signal.SIGTERM)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        signal.signal(signal.SIGTERM, asked_to_end)  # Ray has put a handler of its own there, which ends at once
    except (OSError, ValueError, RuntimeError) as error:
        raise ClusterError(
            f"--ray {address}: no Ray cluster answers there; start one with `ray start --head` on one node and "
            f"`ray start --address=...` on the others ({str(error).splitlines()[0]})"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def spread(
    address: str, function: Callable[[Item], Result], items: Iterable[Item], gpus: int = 0
) -> Iterator[tuple[Item, Result]]:
    """(item, function(item)) of every item, as they are done, each on one CPU of the cluster and, where it has any, `gpus` GPUs.

    A task whose node is lost runs again on another, ten times at most; an error of `function` is raised here and ends the others.
    """
    with joined(address) as ray:
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
