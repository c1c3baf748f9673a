"""Recipes of cluster/ that Ray reads are such that it takes them."""

from __future__ import annotations

import yaml

from tests.conftest import ROOT


def test_the_cluster_launcher_takes_ray_yaml() -> None:
    """By Ray's own schema; the token is on, the dashboard on loopback, statistics off, on every node."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "cluster/ray.yaml").read_text())
    validate_config(prepare_config(config))
    starts = [config[f"{kind}_start_ray_commands"][-1] for kind in ("head", "worker")]
    assert all("RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
