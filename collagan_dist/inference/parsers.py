"""Parsing networks for `collagan label`: one of ours, or any ONNX file with a class map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from collagan_dist import files
from collagan_dist.config.load import model_label
from collagan_dist.distributed import devices
from collagan_dist.distributed.engines import build_engine
from collagan_dist.distributed.group import Group
from collagan_dist.errors import ConfigError
from collagan_dist.inference.face_views import Views
from collagan_dist.models.predictor import generator_input, split_channels
from collagan_dist.models.registry import build_generator
from collagan_dist.runs.model_folder import read_config, read_inference_weights
from collagan_dist.tasks import build_tasks
from collagan_dist.types import World


@dataclass(frozen=True)
class ParserIdentity:
    """What decides a label map besides the photograph: the same identity, the same maps."""

    name: str
    sha256: str
    settings: dict[str, Any]


class ParsingNetwork(Protocol):
    """A network that tells the parts of a face. `size` is (height, width) of the pictures it sees."""

    identity: ParserIdentity
    size: tuple[int, int]
    views: Views

    def __call__(self, pixels_BHW3: np.ndarray) -> np.ndarray:
        """(B, 11, h, w) float32 scores of our classes for uint8 RGB pictures of `size`; left is left in the picture."""


def open_parser(model: Path, classes: Path | None = None) -> ParsingNetwork:
    """The parsing network of a run folder, an exported folder or an ONNX file. Raises ConfigError."""
    if model.is_dir():
        if classes is not None:
            raise ConfigError(f"--classes {classes}: is for ONNX files; {model} is a model of ours and needs none")
        return RunParser(model)
    if not model.is_file():
        raise ConfigError(
            f"--model {model}: no such folder or file; give a run folder, an exported one or an ONNX file"
        )
    from collagan_dist.inference.parser_onnx import OnnxParser

    return OnnxParser(model, classes or model.with_suffix(".yaml"))


class RunParser:
    """A generator of ours with the task segmentation, in float32: labels are made once and should repeat."""

    views: Views = "both"

    def __init__(self, model: Path) -> None:
        config = read_config(model)
        if "segmentation" not in config.model.tasks:
            raise ConfigError(
                f"--model {model}: is {model_label(config.model)}, which does not segment; train one that does: collagan train parser"
            )
        self._config, self._tasks = config, build_tasks(config)
        self._engine = build_engine(config.runtime, Group(World(), devices.pick_device(World())))
        generator = build_generator(config, self._tasks)
        scored = read_inference_weights(model)
        scored.load_generator(generator)
        self._generator = self._engine.prepare_module(generator.eval())
        self.size: tuple[int, int] = (config.data.image_size, config.data.image_size)
        self.identity = ParserIdentity(str(model), files.sha256(scored.file), {"views": self.views})

    def __call__(self, pixels_BHW3: np.ndarray) -> np.ndarray:
        image = (
            torch.from_numpy(pixels_BHW3).to(self._engine.device).permute(0, 3, 1, 2).float().mul_(1 / 127.5).sub_(1)
        )
        keys = torch.zeros(len(image), 2, dtype=torch.int32, device=image.device)  # no dropout here
        whole = torch.zeros_like(image[:, :1], dtype=torch.bool)
        with torch.inference_mode():
            outputs = split_channels(self._generator(generator_input(self._config, image, whole), keys), self._tasks)
        return outputs["segmentation"].cpu().numpy()


def run_in_batches(batch: int, pixels_BHW3: np.ndarray, network: Any) -> np.ndarray:
    """`network` over pictures in parts of exactly `batch`, the last one filled up with black."""
    parts: Sequence[np.ndarray] = [pixels_BHW3[i : i + batch] for i in range(0, len(pixels_BHW3), batch)]
    outputs = [network(np.pad(p, ((0, batch - len(p)), (0, 0), (0, 0), (0, 0))))[: len(p)] for p in parts]
    return np.concatenate(outputs)
