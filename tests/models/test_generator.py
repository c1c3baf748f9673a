import numpy as np
import pytest
import torch

from collagan_dist import rng
from collagan_dist.models.discriminator import Discriminator, Discriminators
from collagan_dist.models.generator import Generator

CHANNELS = {"inpainting": 3, "segmentation": 11, "landmarks": 5}


def keys(count: int) -> torch.Tensor:
    return torch.from_numpy(rng.tensor_keys(rng.key64(1, np.arange(count))))


@pytest.mark.parametrize(("size", "levels"), [(64, 6), (128, 7), (256, 8)])
def test_levels_follow_the_picture(size, levels):
    generator = Generator(19, size, 4, 0.5)
    assert len(generator.encoder) == levels and len(generator.decoder) + 1 == levels
    convolutions = [m for m in generator.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))]
    assert {(m.kernel_size, m.stride) for m in convolutions} == {((4, 4), (2, 2))}
    assert generator(torch.zeros(2, 3, size, size), keys(2)).shape == (2, 19, size, size)


def test_parameters_of_the_paper_s_size():
    """pix2pix's unet_128 with 19 output channels, and three discriminators 64-128-256-512-1."""
    generator = Generator(19, 128, 64, 0.5)
    discriminators = Discriminators(CHANNELS, 64)
    assert sum(p.numel() for p in generator.parameters()) == pytest.approx(41.86e6, rel=2e-3)
    assert sum(p.numel() for p in discriminators.parameters()) == pytest.approx(8.32e6, rel=2e-3)
    assert Discriminator(3, 8)(torch.zeros(2, 6, 128, 128)).shape == (2, 1, 4, 4)


def test_output_starts_at_the_means():
    torch.manual_seed(0)
    generator = Generator(3, 32, 4, 0.5).eval()
    generator.initialize_output(torch.tensor([0.5, -0.9, -1.0]))
    bias = torch.tanh(generator.output.bias.detach())
    assert torch.allclose(bias, torch.tensor([0.5, -0.9, -0.964]), atol=1e-3)


def layers(network: torch.nn.Module) -> list[str]:
    """Convolutions in their order, each with whether a normalization follows it and whether it has a bias."""
    found: list[str] = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            found.append("b" if module.bias is not None else "-")
        elif isinstance(module, torch.nn.BatchNorm2d):
            found[-1] += "n"
    return found


def test_normalized_layers():
    """Default: as DCGAN, and not at 1x1. `each`: all of them but the logits; what is normalized needs no bias."""
    inner, each = (Generator(3, 32, 4, 0.5, normalize_each=e) for e in (False, True))
    assert layers(inner) == ["b", "-n", "-n", "-n", "b", *["-n"] * 4, "b"] and layers(each) == ["-n"] * 10
    inner, each = (Discriminator(3, 4, normalize_each=e) for e in (False, True))
    assert layers(inner) == ["b", "-n", "-n", "-n", "b"] and layers(each) == ["-n", "-n", "-n", "-n", "b"]


def test_a_normalized_output_starts_at_the_means_too():
    generator = Generator(3, 32, 4, 0.0, normalize_each=True).train()
    generator.initialize_output(torch.tensor([0.5, -0.9, 0.0]))
    output = generator(torch.rand(8, 3, 32, 32), keys(8))
    assert torch.allclose(torch.atanh(output).mean((0, 2, 3)), torch.atanh(torch.tensor([0.5, -0.9, 0.0])), atol=1e-3)


def test_noise_is_a_function_of_the_sample():
    generator = Generator(3, 32, 8, 0.5).train()
    x = torch.rand(4, 3, 32, 32)
    assert torch.equal(generator(x, keys(4)), generator(x, keys(4)))
    assert not torch.equal(generator(x, keys(4)), generator(x, keys(8)[4:]))
    generator.eval()
    assert torch.equal(generator(x, keys(4)), generator(x, keys(8)[4:]))


def test_dropout_keeps_the_mean():
    """Half of the elements, other ones in each layer: those of the layer's own stream of random numbers."""
    generator = Generator(3, 32, 8, 0.5)
    kept = generator._draw_dropout(keys(8))
    assert [mask.shape for mask in kept] == [(8, 64 * 4), (8, 32 * 16), (8, 16 * 64)]
    for number, mask in enumerate(kept):
        assert torch.equal(mask, rng.uniform_tensor(keys(8), mask.shape[1], stream=10 + number) >= 0.5)
        assert abs(mask.float().mean() - 0.5) < 0.03
    assert not torch.equal(kept[0], kept[1][:, :256])
    x, outputs = torch.rand(8, 3, 32, 32), []
    generator.output.register_forward_pre_hook(lambda _, inputs: outputs.append(inputs[0]))
    for training in (False, True):
        generator.train(training)
        for norm in (m for m in generator.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            norm.eval()
        generator(x, keys(8))
    assert not torch.equal(*outputs)
