"""cluster/ray.yaml: what Ray's cluster launcher takes, and that nobody gets into such a cluster without its token."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from collagan_dist.sweep.growth import Growth, NodeType, parse_growth
from tests.conftest import ROOT


@pytest.fixture
def launcher() -> dict[str, Any]:
    """The file as `ray up` reads it, with Ray's own defaults for its provider."""
    from ray.autoscaler._private.util import prepare_config

    return prepare_config(yaml.safe_load((ROOT / "cluster/ray.yaml").read_text()))


def test_ray_accepts_the_file(launcher):
    from ray.autoscaler._private.util import validate_config

    validate_config(launcher)
    assert launcher["max_workers"] == len(launcher["provider"]["worker_ips"])
    with pytest.raises(Exception, match="max_worker"):
        validate_config(launcher | {"max_worker": 3})


def test_a_sweep_on_such_a_cluster_waits_for_no_other_machine(launcher):
    """All machines that it names run from the beginning; those of a cloud are started for what waits."""
    assert parse_growth("ray.yaml", json.dumps(launcher)) is None
    types = {"gpu": {"resources": {"CPU": 8, "GPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 3}}
    cloud = launcher | {"available_node_types": launcher["available_node_types"] | types}
    assert parse_growth("ray.yaml", json.dumps(cloud)) == Growth((NodeType("gpu", {"CPU": 8.0, "GPU": 1.0}, 3),), 2)


def test_every_start_has_a_token_and_sends_no_statistics(launcher):
    commands = [*launcher["head_start_ray_commands"], *launcher["worker_start_ray_commands"]]
    starts = [command for command in commands if "ray start" in command]
    assert ["--head" in command for command in starts] == [True, False]
    for command in starts:
        assert command.startswith("export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 ")
        assert "--disable-usage-stats" in command and "RAY_AUTH_TOKEN=" not in command
    assert "--dashboard-host=127.0.0.1" in starts[0] and "without_client_server" in starts[0]
    assert "RAY_enable_autoscaler_v2=0" in starts[0]  # the other one never starts the workers


def test_copied_files_exist(launcher):
    mounts = launcher["file_mounts"]
    assert mounts["~/.ray/auth_token"] == "~/.ray/auth_token"
    project = Path(ROOT, mounts["~/collagan"])
    assert {"pyproject.toml", "setup.py", "constraints.txt", "collagan_dist"} <= {
        path.name for path in project.iterdir()
    }
