import torch

from collagan_dist.models import gfc
from collagan_dist.training.loop import train
from tests.models.peers import WORLD, peer, smooth, start, train_parser


def test_parser_gives_the_probabilities_of_its_classes(shards, parser):
    network = gfc.load_parser(str(parser))
    picture = smooth(2, 32).image_B3HW.requires_grad_(True)
    shares = gfc.log_probabilities(network(picture)).exp()
    assert shares.shape == (2, 11, 32, 32) and torch.allclose(shares.sum(1), torch.ones(2, 32, 32), atol=1e-4)
    scores = network.network(picture, None)
    assert torch.equal(shares.argmax(1), scores.argmax(1)) and not network.train().network.training
    shares.square().mean().backward()
    assert picture.grad is not None and picture.grad.any()
    assert all(p.grad is None for p in network.parameters())


def test_parser_of_another_size(shards, tmp_path):
    train(train_parser(shards, size=64), tmp_path / "parser", WORLD)
    step, _ = start(peer(shards, "gfc", tmp_path / "parser"))
    assert step(smooth(4, 32), 19).values["loss/inpainting/parsing"] > 0
    assert gfc.load_parser(str(tmp_path / "parser"))(smooth(4, 32).image_B3HW).shape[-1] == 64
