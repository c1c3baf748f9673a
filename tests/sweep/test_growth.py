import json
from typing import Any
from unittest.mock import patch

import pytest
import ray
from ray._private.state import state

from collagan_dist.sweep import growth as module
from collagan_dist.sweep.growth import Growth, NodeType, parse_growth, read_growth
from collagan_dist.sweep.resources import TrialResources

SMALL, LARGE = {"CPU": 2.0}, {"CPU": 8.0, "GPU": 1.0}


def growth(types: dict[str, dict[str, Any]], **settings: Any) -> Growth | None:
    head = {"head": {"resources": {"CPU": 4}, "node_config": {}, "max_workers": 0}}
    found = {"cluster_name": "x", "head_node_type": "head", "available_node_types": head | types, **settings}
    return parse_growth("cluster.yaml", json.dumps(found))


def test_the_node_types_of_a_cluster_configuration():
    """Each up to its own limit, all up to the cluster's; the head node is there already."""
    found = growth({"small": {"resources": SMALL, "max_workers": 3}, "large": {"resources": LARGE}}, max_workers=5)
    assert found == Growth((NodeType("small", SMALL, 3), NodeType("large", LARGE, 5)), 5)
    assert found.is_known
    assert [str(kind) for kind in found.types] == [
        "small: 2 CPUs, 0 GPUs, up to 3 of them",
        "large: 8 CPUs, 1 GPUs, up to 5 of them",
    ]
    assert found.nodes(TrialResources(cpus=4).capacity) == [LARGE] * 5
    assert Growth(found.types, 7).nodes(TrialResources(cpus=2).capacity) == [LARGE] * 5 + [SMALL] * 2


@pytest.mark.parametrize(
    ("types", "settings", "expected"),
    [
        ({"one": {"resources": SMALL}}, {}, Growth((NodeType("one", SMALL, 2),), 2)),  # Ray's own default
        ({"one": {"resources": SMALL}}, {"max_workers": 0}, None),
        ({"one": {"resources": SMALL, "max_workers": 0}}, {"max_workers": 4}, None),
        ({}, {"max_workers": 4}, None),
        # Machines reached by ssh: all of them run from the beginning, unless told otherwise.
        ({"ssh": {"resources": {}, "min_workers": 3, "max_workers": 3}}, {"max_workers": 3}, None),
        ({"ssh": {"resources": {}, "min_workers": 0, "max_workers": 3}}, {"max_workers": 3}, Growth((NodeType("ssh", None, 3),), 3)),
    ],
)  # fmt: skip
def test_what_may_be_started(types, settings, expected):
    assert growth(types, **settings) == expected


def test_a_head_node_that_does_not_answer_may_grow():
    """Nothing is refused then. One that runs no task of ours is out of reach, and counts as it is."""
    for error, found in ((ray.exceptions.GetTimeoutError, Growth()), (ray.exceptions.RayError, None)):
        with (
            patch.object(state, "get_cluster_config", return_value=None),
            patch.object(module, "_ask_head", side_effect=error),
        ):
            assert read_growth(ray) == found


def test_a_configuration_that_cannot_be_read_is_that_of_an_unknown_autoscaler():
    assert parse_growth("x", "a: [") == parse_growth("x", "available_node_types: 3") == Growth()
    assert not Growth().is_known
