import numpy as np
import pytest
import torch

from collagan_dist.setup import training_order
from collagan_dist.types import World
from tests.training.one_rank import batches, setup, together


@pytest.mark.parametrize(("kind", "window"), [("block", 128), ("pattern", 128), ("noise", 128), ("block", 2)])
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_together_see_what_one_rank_sees(shards, size, kind, window):
    """Two epochs and more: samples, augmented pictures, labels, points, holes, fills and noise keys are bit-equal."""
    alone = together(shards, size, range(9), kind=kind, window=window)
    seen = np.concatenate([b.ids_B for b in alone])
    epochs = np.concatenate([b.epoch_B for b in alone])
    assert sorted(seen[epochs == 0]) == sorted(seen[epochs == 1]) == list(range(48))


def test_views_differ_between_epochs_and_not_between_runs(shards):
    first, again = batches(shards, 0, 1, range(8), "block"), batches(shards, 0, 1, range(8), "block")
    assert all(torch.equal(a.input_B3HW, b.input_B3HW) for a, b in zip(first, again, strict=True))
    by_epoch = [
        {int(i): x for b in part for i, x in zip(b.ids_B, b.image_B3HW, strict=True)} for part in (first[:4], first[4:])
    ]
    assert all(not torch.equal(by_epoch[0][i], by_epoch[1][i]) for i in range(48))


def test_no_two_samples_share_their_randomness(shards):
    first = batches(shards, 0, 1, range(8), "noise")
    keys = [tuple(k) for b in first for k in b.keys_B2.tolist()]
    assert len(set(keys)) == len(keys) == 96  # two epochs
    part = setup(shards, schedule__batch=12, seed=1)
    loader = part.loader("train", part.view(training=True), 12)
    other = next(loader.batches(iter([training_order(part.config, shards).step(0, World())])))
    assert not set(keys) & {tuple(k) for k in other.keys_B2.tolist()}
