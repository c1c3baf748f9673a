"""model.init: a new run starts from the weights of another one, whose tasks and image_size may be others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from collagan_dist.config.load import model_label
from collagan_dist.config.tree import Config
from collagan_dist.errors import ConfigError
from collagan_dist.models.networks import Networks
from collagan_dist.runs.model_folder import read_config, read_inference_parameters
from collagan_dist.tasks import build_tasks

Tensors = Mapping[str, torch.Tensor]
# Slices of a tensor's output channels: in the run's network, and in the other one's.
Channels = tuple[slice, slice]

# Tensors of the generator's output layer, with the dimension that counts the channels of all tasks.
_OUTPUT = re.compile(r"output\.(?P<kernel>weight)|output\.bias|output_norm\.(weight|bias|running_mean|running_var)")
_DECODER = re.compile(r"decoder\.(\d+)\.")


@dataclass(frozen=True)
class _Taken:
    """One tensor: its name in the run's network, the other network's values, and where they go."""

    name: str
    values: torch.Tensor
    dim: int = 0
    channels: tuple[Channels, ...] = ()  # () for the whole tensor

    def copy_to(self, own: torch.Tensor) -> None:
        if not self.channels:
            own.copy_(self.values)
        for to, of in self.channels:
            own.movedim(self.dim, 0)[to].copy_(self.values.movedim(self.dim, 0)[of])


@dataclass(frozen=True)
class InitialWeights:
    """What of another model fits the networks of a run. As text it says what is taken and what begins anew."""

    source: Path
    step: int
    sha256: str  # of the other model's networks, discriminators included
    generator: tuple[_Taken, ...]
    discriminators: tuple[_Taken, ...]
    totals: tuple[int, int]  # tensors of the run's generator and discriminators
    new: tuple[str, ...]  # names of modules of which nothing, or not everything, is taken

    def __str__(self) -> str:
        text = f"{self.source}, step {self.step:,}: {_count(self.generator, self.totals[0])} of the generator"
        text += f", {_count(self.discriminators, self.totals[1])} of the discriminators are taken"
        return f"{text}; these begin anew: {', '.join(self.new)}" if self.new else text

    @torch.no_grad()
    def load_into(self, networks: Networks) -> None:
        """Copy the weights into the networks and the generator's moving average."""
        pairs = [(networks.generator, self.generator), (networks.discriminators, self.discriminators)]
        if networks.ema is not None:
            pairs.append((networks.ema, self.generator))
        for network, taken in pairs:
            own = network.state_dict()  # of the same memory as the network
            for one in taken:
                one.copy_to(own[one.name])
        networks.set_parameters()


def _count(taken: tuple[_Taken, ...], total: int) -> str:
    """Return how many tensors are taken, and of which modules."""
    modules = Counter(one.name.removeprefix("of.").split(".")[0] for one in taken)  # discriminators by their tasks
    named = ", ".join(f"{module} {count}" for module, count in modules.items())
    return f"{len(taken)} of {total} tensors{f' ({named})' * bool(named)}"


def read_initial_weights(config: Config, generator: nn.Module, discriminators: nn.Module) -> InitialWeights:
    """Read the model of model.init and find what of it fits these networks, which may be on the device `meta`.

    Raises ConfigError, CheckpointError. Nothing is changed.
    """
    source = Path(config.model.init or "")
    other = read_config(source)
    weights = read_inference_parameters(source)
    own = generator.state_dict(), discriminators.state_dict()
    channels = tuple(_shared_channels(config, other))
    of_generator = tuple(_fitting(_aligned(weights.generator, own[0]), own[0], channels))
    of_discriminators = tuple(_fitting(weights.discriminators or {}, own[1]))
    # Biases and counters of any widths may have one shape; a kernel has it only where the widths are the same.
    if not any(one.values.ndim > 1 for one in of_generator):
        raise ConfigError(
            f"model.init: no kernel of {source} ({_described(other)}) has the shape of this model's ({_described(config)}); "
            "give a model of these widths, or none"
        )
    new = [f"{name} of the generator" for name in _new_modules(own[0], of_generator, config, other)]
    new += _new_modules(own[1], of_discriminators, config, other)
    return InitialWeights(
        source,
        weights.step,
        weights.sha256,
        of_generator,
        of_discriminators,
        (len(own[0]), len(own[1])),
        tuple(new),
    )


def _described(config: Config) -> str:
    widths = config.model.widths
    return f"{model_label(config.model)}, widths {widths.generator} and {widths.discriminator}, image_size {config.data.image_size}"


def _shared_channels(config: Config, other: Config) -> Iterator[Channels]:
    """Yield the output channels of each task that both models have."""
    own, theirs = _channels(config), _channels(other)
    for task in own.keys() & theirs.keys():
        if _length(own[task]) == _length(theirs[task]):
            yield own[task], theirs[task]


def _channels(config: Config) -> dict[str, slice]:
    found, start = {}, 0
    for name, task in build_tasks(config).items():
        found[name] = slice(start, start + task.channels)
        start += task.channels
    return found


def _length(channels: slice) -> int:
    return channels.stop - channels.start


def _aligned(source: Tensors, own: Tensors) -> Tensors:
    """Return the other generator's tensors with the decoder's layers counted from the image, as the encoder's are."""
    # Decoder layers are numbered from 1x1 on. A network of larger pictures has more of them, the last are those of the same scale.
    shift = _decoder_layers(own) - _decoder_layers(source)
    return {_DECODER.sub(lambda layer: f"decoder.{int(layer[1]) + shift}.", name): t for name, t in source.items()}


def _decoder_layers(tensors: Tensors) -> int:
    return len({layer[1] for layer in map(_DECODER.match, tensors) if layer})


def _fitting(source: Tensors, own: Tensors, channels: tuple[Channels, ...] | None = None) -> Iterator[_Taken]:
    for name, mine in own.items():
        theirs = source.get(name)
        if theirs is None or theirs.ndim != mine.ndim:
            continue
        if channels is not None and (found := _OUTPUT.fullmatch(name)):
            dim = 1 if found["kernel"] else 0  # the kernel of a transposed convolution has its inputs first
            if channels and mine.movedim(dim, 0).shape[1:] == theirs.movedim(dim, 0).shape[1:]:
                yield _Taken(name, theirs, dim, channels)
        elif theirs.shape == mine.shape:
            yield _Taken(name, theirs)


def _new_modules(own: Tensors, taken: tuple[_Taken, ...], config: Config, other: Config) -> list[str]:
    """Return the names of modules that begin anew, with the number of their tensors, and the tasks whose output channels do."""
    names = {one.name for one in taken}
    counts = Counter(".".join(name.split(".")[:2]) for name in own if name not in names)
    found = [f"{module} ({count})" for module, count in counts.items()]
    if any(one.channels for one in taken):
        theirs = _channels(other)
        found += [f"output channels of {task}" for task in _channels(config) if task not in theirs]
    return found
