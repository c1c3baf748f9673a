"""Opens the network of evaluate.features: a model that segments, or a file of Inception's or LPIPS' weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from collagan_dist.errors import CheckpointError, ConfigError
from collagan_dist.models.feature_network import FeatureNetwork
from collagan_dist.models.generator import Generator
from collagan_dist.models.inception import Inception
from collagan_dist.models.lpips import Lpips
from collagan_dist.models.parsing import ParsingNetwork, load_parsing_network
from collagan_dist.runs import contents

Tensors = dict[str, torch.Tensor]
_OPTION = "evaluate.features: "
_LAYERS = 4  # of the encoder, from the image inwards: at 128 pixels 64x64 to 8x8
_FIRST = "net.slice1.0.weight"  # LPIPS' first convolution


class ParserFeatures(FeatureNetwork):
    """The encoder of a model that segments: its first four layers, the last of them averaged over pixels as pooled features.

    Deeper layers see most of the picture, and have as many channels as a small test split has samples.
    """

    kind = "segmentation"

    def __init__(self, parser: ParsingNetwork) -> None:
        super().__init__()
        self.parser = parser
        assert isinstance(parser.network, Generator)  # the other kinds of models have no segmentation
        self.encoder = parser.network.encoder[:_LAYERS]
        self.dimension = self.encoder[-1][0].out_channels  # type: ignore[index]

    def activations(self, image_B3HW: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """As FeatureNetwork; images are resized to the model's size, bilinear with antialiasing."""
        x, layers = self.parser.input(image_B3HW), []
        for layer in self.encoder:
            x = layer(x)
            layers.append(x)
        return x.mean(dim=(2, 3)), layers


def open_features(path: Path) -> FeatureNetwork:
    """Return the network of a run folder, an exported folder or a weight file. Raises ConfigError, CheckpointError."""
    if path.is_dir():
        network: FeatureNetwork = ParserFeatures(load_parsing_network(path, _OPTION)[0])
    elif path.is_file():
        network = _from_file(path)
    else:
        raise ConfigError(
            f"{_OPTION}{path}: no such folder or file; give a model that segments (run folder or export), or a file of the weights "
            "of Inception or LPIPS"
        )
    network.freeze()
    return network


def _from_file(path: Path) -> FeatureNetwork:
    tensors = _read_tensors(path)
    network: FeatureNetwork
    if "Mixed_7c.branch1x1.conv.weight" in tensors:
        network = Inception()
    elif _FIRST in tensors:
        network = Lpips("alex" if tensors[_FIRST].shape[-1] == 11 else "vgg")
    else:
        raise ConfigError(
            f"{_OPTION}{path}: has neither the tensors of the Inception of the Fréchet inception distance (pytorch-fid's file) nor "
            "those of LPIPS (state_dict() of lpips.LPIPS)"
        )
    expected = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    # The file has more: the classifier of Inception, copies of LPIPS' weights.
    found = {name: tensor for name, tensor in tensors.items() if name in expected}
    try:
        contents.check_tensors(path.name, found, expected)
    except CheckpointError as error:
        raise ConfigError(f"{_OPTION}{path.parent}: {error}") from None
    network.load_state_dict(found, strict=False)
    return network


def _read_tensors(path: Path) -> Tensors:
    try:
        return load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        # Files by torch.save are pickles, which can run anything.
        raise ConfigError(
            f"{_OPTION}{path}: is no safetensors file ({error}); read the weights by torch where you trust them, and write "
            "them by safetensors.torch.save_file(state_dict, 'weights.safetensors')"
        ) from None
