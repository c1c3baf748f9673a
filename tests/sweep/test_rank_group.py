import itertools
import os
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from collagan_dist.sweep.rank_group import assign_ranks
from tests.conftest import collagan
from tests.sweep.ray_nodes import ENVIRONMENT
from tests.sweep.small import LR_SPACE, Sweep
from tests.training.small import equal, weights

HELD = """
import tempfile, ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as In
from collagan_dist.errors import ClusterError
from collagan_dist.sweep.rank_group import RankActor, train_on_ranks
from collagan_dist.sweep.segment import SegmentSpec

def trains():
    try:
        train_on_ranks(SegmentSpec("out/t000", "", {"runtime": {"rendezvous_timeout": 1}}, 1, 2, False, False, ""))
    except ClusterError as error:
        return str(error)

with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False,
             _node_ip_address="127.0.0.1", _temp_dir=folder)
    group = placement_group([{"CPU": 1}] * 2)
    held = ray.remote(num_cpus=1)(RankActor).options(scheduling_strategy=In(group, 1)).remote()
    ray.get(held.node.remote())
    inside = In(group, 0, placement_group_capture_child_tasks=True)
    print(ray.get(ray.remote(num_cpus=1)(trains).options(scheduling_strategy=inside).remote()))
    ray.shutdown()
"""


@given(st.lists(st.sampled_from("abcd"), max_size=7))
@settings(deadline=None)
def test_ranks_are_numbered_node_by_node(nodes):
    """This process is rank 0; each node has consecutive ranks, and local ranks that count them."""
    worlds = assign_ranks("a", nodes)
    places = ["a", *nodes]
    assert worlds[0][0] == 0 and sorted(world[0] for world in worlds) == list(range(len(places)))
    by_rank = sorted(zip(worlds, places, strict=True))
    groups = [(node, [world for world, _ in group]) for node, group in itertools.groupby(by_rank, lambda pair: pair[1])]
    assert len(groups) == len(set(places))  # no node comes twice
    for number, (node, group) in enumerate(groups):
        assert [world[2] for world in group] == list(range(places.count(node)))
        assert all(world[1] == len(places) and world[3] == len(group) and world[4] == number for world in group)


def test_two_workers_train_what_two_ranks_train(shards, tmp_path):
    sweep = Sweep(tmp_path, shards.folder, LR_SPACE, "--trials", 1, "--workers", 2, schedule__steps=6)
    sweep.run()
    collagan("train", sweep.trial(0) / "config.yaml", "--out", tmp_path / "run", ranks=2)
    assert equal(weights(tmp_path / "run", 6), weights(sweep.trial(0), 6))


def test_a_rank_that_does_not_start_is_not_waited_for():
    """Another actor has its place: as on a node that starts no process, the trial is a loss that is tried again."""
    done = subprocess.run(
        [sys.executable, "-c", HELD], capture_output=True, text=True, timeout=200, env=os.environ | ENVIRONMENT
    )
    assert done.stdout == "1 of 2 ranks of trial out/t000 did not start in 1 s (runtime.rendezvous_timeout)\n", (
        done.stderr
    )
