import pytest
import torch
from safetensors.torch import save_file

from collagan_dist.errors import ConfigError
from collagan_dist.models.features import open_features
from collagan_dist.models.inception import Inception
from collagan_dist.models.lpips import Lpips


def random_weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    state = {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
    scale = {name: (2 / tensor[0].numel()) ** 0.5 if tensor.ndim > 1 else 0.1 for name, tensor in state.items()}
    found = {name: torch.randn(t.shape, generator=draw) * scale[name] for name, t in state.items()}
    # Variances and LPIPS' weights are not negative.
    return {name: t.abs() + 0.5 if name.endswith(("running_var", "model.1.weight")) else t for name, t in found.items()}


def picture(seed: int = 1, size: int = 64) -> torch.Tensor:
    return torch.rand(3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize(
    ("network", "kind", "dimension", "millions", "layers"),
    [
        # Parameters of the published networks, without their classifiers and with LPIPS' weights.
        (Inception(), "inception", 2048, 21.785568, [64, 192, 768, 2048]),
        (Lpips("alex"), "lpips-alex", 256, 2.469696 + 0.001152, [64, 192, 384, 256, 256]),
        (Lpips("vgg"), "lpips-vgg", 512, 14.714688 + 0.001472, [64, 128, 256, 512, 512]),
    ],
)
def test_weight_files(tmp_path, network, kind, dimension, millions, layers):
    assert sum(p.numel() for p in network.parameters()) == round(millions * 1e6)
    weights = random_weights(network)
    # A file may have more than is needed, such as a classifier.
    for name, more in (("plain", {}), ("more", {"fc.weight": torch.zeros(3)})):
        save_file(weights | more, tmp_path / f"{name}.safetensors")
    found = [open_features(tmp_path / f"{name}.safetensors") for name in ("plain", "more")]
    for opened in found:
        assert (opened.kind, opened.dimension) == (kind, dimension) and not opened.train().training
    one, other = (opened.features(picture()) for opened in found)
    assert torch.equal(one.pooled, other.pooled) and one.pooled.shape == (dimension,)
    assert [layer.shape[0] for layer in one.layers] == layers
    assert found[0].distance(one, other) == 0
    near, far = (found[0].features((picture() + share * picture(2)).clamp(-1, 1)) for share in (0.05, 0.5))
    assert 0 < found[0].distance(one, near) < found[0].distance(one, far)


def test_files_that_are_no_weights(tmp_path):
    (tmp_path / "text.safetensors").write_text("weights")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    weights = random_weights(Lpips("alex"))
    save_file(weights | {"net.slice2.3.weight": torch.zeros(2)}, tmp_path / "shape.safetensors")
    save_file({k: v for k, v in weights.items() if k != "net.slice5.10.bias"}, tmp_path / "missing.safetensors")
    torch.save(weights, tmp_path / "pickled.pth")
    for name, message in (
        ("nowhere.safetensors", "no such folder or file"), ("text.safetensors", "is no safetensors file"),
        ("other.safetensors", "has neither"), ("shape.safetensors", r"net\.slice2\.3\.weight"),
        ("missing.safetensors", r"net\.slice5\.10\.bias"), ("pickled.pth", "is no safetensors file .*save_file"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"evaluate.features: .*{message}"):
            open_features(tmp_path / name)
