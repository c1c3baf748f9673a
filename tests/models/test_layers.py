import pytest
import torch

from collagan_dist.models import ce, gfc_networks, layers, sii
from collagan_dist.models.layers import BatchNorm, Double, Halve, patches, sum_of_patches


@pytest.mark.parametrize("size", [32, 64, 128])
def test_pictures_in_pictures_and_logits_out(size):
    x, keys = torch.randn(2, 3, size, size), torch.zeros(2, 2, dtype=torch.int32) + 1
    for generator in (ce.ContextEncoder(size, 4, 8), sii.SIIGenerator(8, size, 4), gfc_networks.GFCGenerator(size, 4)):
        assert generator(x, keys).shape == x.shape and generator(x, keys).dtype == torch.float32
        assert generator.eval()(10 * x, keys).abs().max() <= 1
    for kind in (ce.CEDiscriminator, sii.SIIDiscriminator, gfc_networks.GFCDiscriminator):
        assert kind(size, 4)(x).flatten(1).shape == (2, 1)
    assert gfc_networks.GFCDiscriminator(size // 2, 4)(x[..., : size // 2, : size // 2]).numel() == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_batch_normalized_by_parts_is_the_parts_one_after_the_other(dtype, layout):
    """Bit by bit: values, gradients, running statistics."""
    torch.manual_seed(0)
    ours, plain = BatchNorm(5), torch.nn.BatchNorm2d(5)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(6, 5, 4, 4).to(memory_format=layout).to(dtype)
    x[3:] += 2
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = ours(one, 2), torch.cat([plain(part) for part in other.split(3)])
    above = torch.randn_like(y)
    y.backward(above)
    expected.backward(above)
    assert torch.equal(y, expected) and torch.equal(one.grad, other.grad)
    assert torch.equal(ours.weight.grad, plain.weight.grad) and torch.equal(ours.bias.grad, plain.bias.grad)
    assert torch.equal(ours.running_mean, plain.running_mean) and torch.equal(ours.running_var, plain.running_var)
    ours.eval(), plain.eval()
    assert torch.equal(ours(x, 2), plain(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("layer", "sides"), [(Halve, (2, 4, 8)), (Double, (1, 2, 4))])
def test_small_images_by_a_product_of_matrices(layer, sides, dtype, monkeypatch):
    """What torch's convolutions give, values and gradients, to rounding; with the bias where there is one."""
    torch.manual_seed(0)
    monkeypatch.setattr(layers, "_LARGE_WEIGHT", 1)
    for side in sides:
        ours = layer(6, 5, bias=layer is Halve).to(memory_format=torch.channels_last)
        plain = torch.nn.Conv2d if layer is Halve else torch.nn.ConvTranspose2d
        x = torch.randn(3, 6, side, side).to(memory_format=torch.channels_last)
        found = []
        for forward in (ours.forward, lambda x, m=ours, plain=plain: plain.forward(m, x)):
            ours.zero_grad()
            seen = x.clone().requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                y = forward(seen)
            y.float().square().sum().backward()
            found.append([y.detach().float(), seen.grad, *(p.grad for p in ours.parameters())])
        limit = 1e-5 if dtype == torch.float32 else 0.02
        for one, other in zip(*found, strict=True):
            assert one.shape == other.shape and (one - other).abs().max() <= limit * other.abs().max()
        assert layers._is_faster_as_product(ours.weight, x, 9, 9)
        assert not layers._is_faster_as_product(ours.weight, x, 10, 9)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_patches_and_their_sum_are_those_of_torch(layout):
    """As F.unfold and F.fold cut and add them, and each the other's derivative."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 10).to(memory_format=layout).double().requires_grad_()
    cut = patches(x.permute(0, 2, 3, 1))
    columns = torch.nn.functional.unfold(x, 4, stride=2, padding=1)
    assert torch.equal(cut.permute(0, 5, 3, 4, 1, 2).reshape(columns.shape), columns)
    added = sum_of_patches(cut.float()).permute(0, 3, 1, 2)
    assert torch.allclose(added, torch.nn.functional.fold(columns.float(), (6, 10), 4, stride=2, padding=1))
    above = torch.randn_like(cut)
    (of_x,) = torch.autograd.grad(cut, x, above, retain_graph=True)
    (expected,) = torch.autograd.grad(columns, x, above.permute(0, 5, 3, 4, 1, 2).reshape(columns.shape))
    assert torch.allclose(of_x, expected, atol=1e-6)
    pieces = cut.detach().requires_grad_()
    (of_pieces,) = torch.autograd.grad(sum_of_patches(pieces), pieces, 1 + 0 * x.detach().permute(0, 2, 3, 1))
    assert torch.equal(of_pieces, patches(1 + 0 * x.detach().permute(0, 2, 3, 1)))
