import pytest
import torch

from collagan_dist.models import ce, gfc_networks, sii
from collagan_dist.models.layers import doubling_widths
from tests.models.network_sizes import SIZES


@pytest.mark.parametrize("size", SIZES)
def test_pictures_in_pictures_and_logits_out(size):
    x, keys = torch.randn(2, 3, size, size), torch.zeros(2, 2, dtype=torch.int32) + 1
    for generator in (ce.ContextEncoder(size, 4, 8), sii.SIIGenerator(8, size, 4), gfc_networks.GFCGenerator(size, 4)):
        assert generator(x, keys).shape == x.shape and generator(x, keys).dtype == torch.float32
        assert generator.eval()(10 * x, keys).abs().max() <= 1
    for kind in (ce.CEDiscriminator, sii.SIIDiscriminator, gfc_networks.GFCDiscriminator):
        assert kind(size, 4)(x).flatten(1).shape == (2, 1)
    assert gfc_networks.GFCDiscriminator(size // 2, 4)(x[..., : size // 2, : size // 2]).numel() == 2


@pytest.mark.parametrize(
    ("size", "others", "widths"),
    [(128, (4, 512, 64), [64, 64, 128, 256, 512]), (64, (4, 512, 64), [64, 128, 256, 512]), (32, (8, 256), [128, 256])],
)
def test_doubling_widths(size, others, widths):
    assert doubling_widths(size, *others) == widths
