import torch
import torch.nn.functional as F
from torch import nn

from collagan_dist.models import gfc_networks
from tests.models.network_sizes import widths


def test_gfc_is_that_of_its_prototxt():
    with torch.device("meta"):  # 134 million parameters in the full layers
        network = gfc_networks.GFCGenerator(128, 64)
    assert widths(network.encoder, 1) == [32, 32, 64, 64, 128, 128, 256, 256, 256, 256]
    assert widths(network.decoder, 1) == [64, 64, 64, 128, 64, 64, 64, 32, 32, 32]
    assert [m.out_features for m in network.full if isinstance(m, nn.Linear)] == [4096, 16384]
    local, whole = gfc_networks.GFCDiscriminator(64, 64), gfc_networks.GFCDiscriminator(128, 64)
    assert widths(local, 2) == [64, 128, 256, 512] and widths(whole, 2) == [32, 64, 128, 256, 512]
    assert widths(local, 1) == [64, 128, 256, 512, 1]


def test_unpooling_puts_values_back():
    x = torch.randn(2, 3, 8, 8)
    pooled, places = F.max_pool2d(x, 2, return_indices=True)
    assert torch.equal(gfc_networks.unpool(pooled, places), F.max_unpool2d(pooled, places, 2))
    assert F.max_pool2d(gfc_networks.unpool(pooled.abs(), places), 2).equal(pooled.abs())
