"""The peers' networks: their published sizes, and others."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from collagan_dist.models import ce, gfc_networks, sii
from collagan_dist.models.layers import doubling_widths

SIZES = (32, 64, 128)


def widths(network: nn.Module, stride: int) -> list[int]:
    """Output channels of a network's convolutions of a stride, in order."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    return [m.out_channels for m in network.modules() if isinstance(m, kinds) and m.stride == (stride, stride)]


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("size", SIZES)
def test_pictures_in_pictures_and_logits_out(size: int) -> None:
    x, keys = torch.randn(2, 3, size, size), torch.zeros(2, 2, dtype=torch.int32) + 1
    for generator in (ce.ContextEncoder(size, 4, 8), sii.SIIGenerator(8, size, 4), gfc_networks.GFCGenerator(size, 4)):
        assert generator(x, keys).shape == x.shape and generator(x, keys).dtype == torch.float32
        assert generator.eval()(10 * x, keys).abs().max() <= 1
    for kind in (ce.CEDiscriminator, sii.SIIDiscriminator, gfc_networks.GFCDiscriminator):
        assert kind(size, 4)(x).flatten(1).shape == (2, 1)
    assert gfc_networks.GFCDiscriminator(size // 2, 4)(x[..., : size // 2, : size // 2]).numel() == 2


def test_ladder() -> None:
    assert doubling_widths(128, 4, 512, 64) == [64, 64, 128, 256, 512] and doubling_widths(64, 4, 512, 64) == [
        64,
        128,
        256,
        512,
    ]
    assert doubling_widths(128, 8, 256) == [32, 64, 128, 256] and doubling_widths(32, 8, 256) == [128, 256]


def test_context_encoder_is_that_of_train_random() -> None:
    network = ce.ContextEncoder(128, 64, 4000)
    assert widths(network.encoder, 2) == [64, 64, 128, 256, 512] and widths(network.encoder, 1) == [4000]
    assert widths(network.decoder, 1) == [512] and widths(network.decoder, 2) == [256, 128, 64, 64, 3]
    assert all(m.bias is None for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d))
    assert widths(ce.ContextEncoder(64, 64, 4000).encoder, 2) == [64, 128, 256, 512]
    assert widths(ce.CEDiscriminator(128, 64), 2) == [64, 64, 128, 256, 512]


def test_dcgan_is_that_of_bamos() -> None:
    generator, discriminator = sii.SIIGenerator(100, 64, 64), sii.SIIDiscriminator(64, 64)
    assert generator.project.out_features == 8192 and widths(generator, 2) == [256, 128, 64, 3]
    assert widths(discriminator, 2) == [64, 128, 256, 512] and discriminator.output.in_features == 8192
    assert {m.kernel_size for m in discriminator.modules() if isinstance(m, nn.Conv2d)} == {(5, 5)}


def test_gfc_is_that_of_its_prototxt() -> None:
    with torch.device("meta"):  # 134 million parameters in the full layers
        network = gfc_networks.GFCGenerator(128, 64)
    assert widths(network.encoder, 1) == [32, 32, 64, 64, 128, 128, 256, 256, 256, 256]
    assert widths(network.decoder, 1) == [64, 64, 64, 128, 64, 64, 64, 32, 32, 32]
    assert [m.out_features for m in network.full if isinstance(m, nn.Linear)] == [4096, 16384]
    local, whole = gfc_networks.GFCDiscriminator(64, 64), gfc_networks.GFCDiscriminator(128, 64)
    assert widths(local, 2) == [64, 128, 256, 512] and widths(whole, 2) == [32, 64, 128, 256, 512]
    assert widths(local, 1) == [64, 128, 256, 512, 1]


def test_unpooling_puts_values_back() -> None:
    x = torch.randn(2, 3, 8, 8)
    pooled, places = F.max_pool2d(x, 2, return_indices=True)
    assert torch.equal(gfc_networks.unpool(pooled, places), F.max_unpool2d(pooled, places, 2))
    assert F.max_pool2d(gfc_networks.unpool(pooled.abs(), places), 2).equal(pooled.abs())


def test_z_is_uniform_and_a_function_of_the_key() -> None:
    keys = torch.randint(-(2**31), 2**31 - 1, (500, 2)) | 1
    z = sii.noise(keys.int(), 100)
    assert torch.equal(z[7:8], sii.noise(keys[7:8].int(), 100)) and z.min() >= -1 and z.max() < 1
    assert abs(z.mean()) < 0.01 and abs(z.var() - 1 / 3) < 0.01
    assert abs(torch.corrcoef(z[:2])[0, 1]) < 0.35
