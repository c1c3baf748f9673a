import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from collagan_dist.sweep.rank_group import assign_ranks
from tests.conftest import collagan
from tests.sweep.small import LR_SPACE, Sweep
from tests.training.small import equal, weights


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
