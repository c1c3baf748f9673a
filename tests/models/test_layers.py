import pytest
import torch

from collagan_dist.models import ce, gfc_networks, sii


@pytest.mark.parametrize("size", [32, 64, 128])
def test_pictures_in_pictures_and_logits_out(size):
    x, keys = torch.randn(2, 3, size, size), torch.zeros(2, 2, dtype=torch.int32) + 1
    for generator in (ce.ContextEncoder(size, 4, 8), sii.SIIGenerator(8, size, 4), gfc_networks.GFCGenerator(size, 4)):
        assert generator(x, keys).shape == x.shape and generator(x, keys).dtype == torch.float32
        assert generator.eval()(10 * x, keys).abs().max() <= 1
    for kind in (ce.CEDiscriminator, sii.SIIDiscriminator, gfc_networks.GFCDiscriminator):
        assert kind(size, 4)(x).flatten(1).shape == (2, 1)
    assert gfc_networks.GFCDiscriminator(size // 2, 4)(x[..., : size // 2, : size // 2]).numel() == 2
