"""A hook for `ray start`, which slurm/sweep.sh and cluster/ray.yaml name in RAY_START_HOOK."""

from __future__ import annotations

from typing import Any


def without_client_server(params: Any, head: bool) -> None:
    """Do not start Ray's client server (port 10001 on all addresses)."""
    # No option of `ray start` switches it off, and it would be one more open port.
    params.ray_client_server_port = None
