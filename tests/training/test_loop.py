import pytest

from collagan_dist.errors import Interrupted
from collagan_dist.training.loop import StartOptions, train
from tests.models.peers import PEERS, WORLD, StopAfter, peer
from tests.training.small import equal, weights


@pytest.mark.parametrize("name", PEERS)
def test_interrupted_equals_uninterrupted(shards, parser, tmp_path, name):
    """Bit for bit, stopped in each of GFC's stages."""
    config = peer(shards, name, parser, schedule__steps=8)
    train(config, tmp_path / "whole", WORLD)
    for steps in (2, 3):
        with pytest.raises(Interrupted):
            train(config, tmp_path / "parts", WORLD, StartOptions(StopAfter(steps)))
    assert train(config, tmp_path / "parts", WORLD) == 8
    assert equal(weights(tmp_path / "whole", 8), weights(tmp_path / "parts", 8))
    assert len(list((tmp_path / "parts/checkpoints").iterdir())) == 3
