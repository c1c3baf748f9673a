"""The paper's model: one generator with output channels for each task, and its discriminators."""

from __future__ import annotations

from torch import nn

from collagan_dist.config.tree import Config
from collagan_dist.models.discriminator import Discriminators, SharedDiscriminator
from collagan_dist.models.generator import Generator
from collagan_dist.tasks.base import Task


def generator(config: Config, tasks: dict[str, Task]) -> nn.Module:
    """Return G with the output channels of all tasks."""
    # One head for all tasks: they share every layer of the generator (section 3.4).
    channels = sum(task.channels for task in tasks.values())
    model = config.model
    inputs, each = 3 + model.mask_channel, model.normalize == "each"
    return Generator(channels, config.data.image_size, model.widths.generator, model.noise, inputs, each)


def discriminators(config: Config, tasks: dict[str, Task]) -> nn.Module:
    """Return one discriminator per task, or one for all outputs together (model.discriminators)."""
    channels = {name: task.channels for name, task in tasks.items()}
    # Both kinds are called alike, so that the step need not know which of them it trains.
    kind = Discriminators if config.model.discriminators == "per_task" else SharedDiscriminator
    model = config.model
    return kind(channels, model.widths.discriminator, model.patch, model.normalize == "each")
