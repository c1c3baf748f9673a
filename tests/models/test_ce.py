import pytest
import torch.nn.functional as F
from torch import nn

from collagan_dist.errors import ConfigError
from collagan_dist.models import ce
from tests.models.network_sizes import widths
from tests.models.peers import peer, smooth, start


def test_context_encoder_is_that_of_train_random():
    network = ce.ContextEncoder(128, 64, 4000)
    assert widths(network.encoder, 2) == [64, 64, 128, 256, 512] and widths(network.encoder, 1) == [4000]
    assert widths(network.decoder, 1) == [512] and widths(network.decoder, 2) == [256, 128, 64, 64, 3]
    assert all(m.bias is None for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d))
    assert widths(ce.ContextEncoder(64, 64, 4000).encoder, 2) == [64, 128, 256, 512]
    assert widths(ce.CEDiscriminator(128, 64), 2) == [64, 64, 128, 256, 512]


def test_ce_is_l2_over_the_whole_picture(shards):
    step, networks = start(peer(shards, "ce"))
    batch = smooth(4, 32)
    output = networks.generator(batch.input_B3HW, batch.keys_B2)
    values = step(batch, 0).values
    assert values["loss/inpainting/rec"] == pytest.approx(F.mse_loss(output, batch.image_B3HW).item(), rel=1e-5)
    total = 0.999 * values["loss/inpainting/rec"] + 0.001 * values["loss/inpainting/adv"]
    assert values["loss/total"].item() == pytest.approx(total.item(), rel=1e-5)


def test_ce_needs_two_samples_a_rank(shards):
    step, _ = start(peer(shards, "ce"))
    with pytest.raises(ConfigError, match=r"schedule.batch: .* give every rank at least 2"):
        step(smooth(1, 32), 0)
