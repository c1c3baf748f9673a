"""An exported generator as files of other programs: model.onnx and model.pt2, each compared with torch before it counts."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from collagan_dist import files
from collagan_dist.config import strict_yaml
from collagan_dist.config.tree import Config
from collagan_dist.errors import ConfigError, NumericError
from collagan_dist.inference.model_card import NetworkFile
from collagan_dist.models.registry import build_generator
from collagan_dist.runs import model_folder
from collagan_dist.tasks import build_tasks
from collagan_dist.types import CLASSES

_CLASS_MAP = """# What `collagan label --model {onnx}` needs to know of {onnx}.
# Input x: (B, 3, {size}, {size}), RGB in [-1, 1]; outputs: {outputs}, float32.
"""
# Largest difference of a float32 output, relative to the largest value. Other orders of sums give 1e-6; a wrong operator, 1e-1.
_TOLERANCE = 1e-3
_BATCHES = (1, 3)  # to compare; the networks are exported with two samples
_SEED = 0

Arrays = Sequence[np.ndarray]


class SplitOutputs(nn.Module):
    """The network of the files: an image in, one output per task. It has no keys, since dropout is off."""

    def __init__(self, generator: nn.Module, channels: list[int]) -> None:
        super().__init__()
        self.generator, self.channels = generator, channels

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.generator(x, None).split(self.channels, dim=1)


def require_onnx() -> None:
    """Raise ConfigError if a package for model.onnx is missing."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"--onnx: the package {error.name} is missing; pip install 'collagan_dist[onnx]'") from None


def write_network_files(
    folder: Path, weights: model_folder.InferenceParameters, config: Config, onnx: bool, program: bool
) -> list[NetworkFile]:
    """Write model.onnx and model.pt2 as asked for, compare their numbers with torch's, and return what was found.

    Raises NumericError where they differ.
    """
    if not (onnx or program):
        return []
    tasks = build_tasks(config)
    generator = build_generator(config, tasks)
    weights.load_generator(generator)
    network = SplitOutputs(generator, [task.channels for task in tasks.values()]).eval()
    found = []
    if onnx:
        path = folder / model_folder.ONNX_FILE
        _write_onnx(path, network, config, list(tasks))
        run, by = _onnx_runner(path)
        found.append(_compared(path, network, config, run, by))
    if program:
        path = folder / model_folder.PROGRAM_FILE
        run = _write_program(path, network, config)
        found.append(_compared(path, network, config, run, f"torch {torch.__version__}"))
    return found


def _sample_input(config: Config, batch: int) -> torch.Tensor:
    size = config.data.image_size
    shape = (batch, 3 + config.model.mask_channel, size, size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(_SEED + batch)) * 2 - 1


def _write_onnx(path: Path, network: nn.Module, config: Config, tasks: list[str]) -> None:
    # It warns that torchvision is missing, whose operators these networks do not use.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            network,
            # Two samples: torch.export takes a dimension of size 1 for a constant.
            (_sample_input(config, 2),),
            str(path),
            dynamo=True,
            input_names=["x"],
            output_names=tasks,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    # `collagan label` gives three channels, so a network with the hole as input cannot serve it.
    if "segmentation" in tasks and not config.model.mask_channel:
        head = _CLASS_MAP.format(onnx=path.name, size=config.data.image_size, outputs=", ".join(tasks))
        files.write_text(path.with_suffix(".yaml"), head + strict_yaml.dump(_class_map()))


def _write_program(path: Path, network: nn.Module, config: Config) -> Callable[[np.ndarray], Arrays]:
    """Write a network as torch.export's program, and return a function that runs the program."""
    shapes = ({0: torch.export.Dim("batch")},)
    with warnings.catch_warnings(action="ignore"):
        program = torch.export.export(network, (_sample_input(config, 2),), dynamic_shapes=shapes)
    # By way of memory: on a full disk torch's own writer ends the process.
    content = io.BytesIO()
    torch.export.save(program, content)
    files.write_bytes(path, content.getvalue())
    # Not read back: torch.export's loader can run what a file says, and nothing here calls such a loader.
    module = program.module()
    return lambda x: [output.numpy() for output in module(torch.from_numpy(x))]


def _onnx_runner(path: Path) -> tuple[Callable[[np.ndarray], Arrays], str]:
    """Return a function that runs an ONNX file, and the name of the program that does."""
    try:
        from collagan_dist.inference.parser_onnx import open_session

        session, version = open_session(path)
        return lambda x: session.run(None, {"x": x}), f"onnxruntime {version}"
    except ImportError:  # there are machines without a wheel of it
        import onnx
        from onnx.reference import ReferenceEvaluator

        reference = ReferenceEvaluator(str(path))
        return lambda x: list(reference.run(None, {"x": x})), f"onnx {onnx.__version__}'s reference"


def _compared(
    path: Path, network: nn.Module, config: Config, run: Callable[[np.ndarray], Arrays], by: str
) -> NetworkFile:
    """Compare a file's outputs with the network's, at other batch sizes than the exported one. Raises NumericError."""
    largest = 0.0
    for batch in _BATCHES:
        x = _sample_input(config, batch)
        with torch.inference_mode():
            expected = [output.numpy() for output in network(x)]
            found = run(x.numpy())
        for task, ours, theirs in zip(config.model.tasks, expected, found, strict=True):
            if ours.shape != theirs.shape:
                raise NumericError(f"{path.name}: {task} has the shape {theirs.shape} in {by}, {ours.shape} in torch")
            difference = float(np.abs(ours - theirs).max()) / max(1.0, float(np.abs(ours).max()))
            # Not `>`: NaN is larger than nothing.
            if not difference <= _TOLERANCE:
                raise NumericError(
                    f"{path.name}: {task} differs by {difference:.1e} from torch in {by}, more than {_TOLERANCE:.0e}; nothing was "
                    "exported. Another version of torch, onnx or onnxruntime may do better"
                )
            largest = max(largest, difference)
    return NetworkFile(path.name, by, largest)


def _class_map() -> dict[str, Any]:
    return {
        "classes": {name: [number] for number, name in enumerate(CLASSES)},
        "sides": "picture",
        "input": {"channels": "rgb", "range": 1, "mean": [0.5] * 3, "std": [0.5] * 3, "views": "both"},
        "output": {"name": "segmentation"},
    }
