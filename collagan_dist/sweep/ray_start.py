"""Read by `ray start` on the nodes of slurm/sweep.sh, which name it in RAY_START_HOOK."""

from __future__ import annotations

from typing import Any


def without_client_server(params: Any, head: bool) -> None:
    """Leave out Ray's client server (port 10001 on all addresses), which no option of `ray start` switches off."""
    params.ray_client_server_port = None
