"""A trained face-parsing network, frozen: `collagan label` and the parsing loss of GFC use it."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from collagan_dist.config.load import model_label
from collagan_dist.config.tree import Config
from collagan_dist.errors import ConfigError
from collagan_dist.models import collagan
from collagan_dist.models.predictor import generator_input, split_channels
from collagan_dist.runs.model_folder import InferenceParameters, read_config, read_inference_parameters
from collagan_dist.tasks import build_tasks
from collagan_dist.tasks.base import Task


class ParsingNetwork(nn.Module):
    """A generator with the task segmentation, frozen: always in eval mode, and gradients pass through it to the image."""

    def __init__(self, config: Config, tasks: dict[str, Task], network: nn.Module) -> None:
        super().__init__()
        self.config, self.tasks, self.network = config, tasks, network
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> ParsingNetwork:
        # GFC holds it among its discriminators, whose train() would reach it.
        return super().train(False)

    def forward(self, image_B3HW: torch.Tensor) -> torch.Tensor:
        """(B, 11, s, s) float32 scores of the classes, -1 to 1, at the network's image_size s; the image is resized to it."""
        # The keys are those of dropout, which eval mode switches off.
        outputs = self.network(self.input(image_B3HW), None)
        return split_channels(outputs, self.tasks)["segmentation"]

    def input(self, image_B3HW: torch.Tensor) -> torch.Tensor:
        """Return what the generator gets for a whole picture: (B, 3 or 4, s, s), without a hole."""
        size = self.config.data.image_size
        if image_B3HW.shape[-1] != size:
            image_B3HW = F.interpolate(image_B3HW, (size, size), mode="bilinear", antialias=True)
        no_hole = torch.zeros_like(image_B3HW[:, :1], dtype=torch.bool)
        return generator_input(self.config, image_B3HW, no_hole)


def load_parsing_network(folder: Path, option: str) -> tuple[ParsingNetwork, InferenceParameters]:
    """The network of a run folder or an exported folder, and its weights; `option` names it in errors.

    Raises ConfigError when the model does not segment, CheckpointError.
    """
    config = read_config(folder)
    if "segmentation" not in config.model.tasks:
        raise ConfigError(
            f"{option}{folder}: is {model_label(config.model)}, which does not segment; train one that does: "
            "collagan train parser"
        )
    tasks = build_tasks(config)
    weights = read_inference_parameters(folder)
    with torch.device("meta"):  # takes no memory, whatever the configuration asks for
        weights.check_generator(collagan.generator(config, tasks))
    network = collagan.generator(config, tasks)  # the other kinds of models have no segmentation
    weights.load_generator(network)
    return ParsingNetwork(config, tasks, network), weights
