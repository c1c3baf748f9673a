"""The face parsers of `collagan label`: a model that this program trained, or an ONNX file with a class map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from collagan_dist import files
from collagan_dist.distributed import devices
from collagan_dist.distributed.engines import build_engine
from collagan_dist.distributed.group import Group
from collagan_dist.errors import ConfigError
from collagan_dist.inference.face_parser import FaceParser, ParserIdentity
from collagan_dist.inference.face_views import Views
from collagan_dist.inference.parser_onnx import OnnxParser
from collagan_dist.models.parsing import load_parsing_network
from collagan_dist.types import World, image_from_pixels


def open_parser(model: Path, classes: Path | None = None) -> FaceParser:
    """Open the parser of a run folder, an exported folder or an ONNX file. Raises ConfigError."""
    if model.is_dir():
        if classes is not None:
            raise ConfigError(f"--classes {classes}: is for ONNX files; the folder {model} needs none")
        return RunParser(model)
    if not model.is_file():
        raise ConfigError(f"--model {model}: no such folder or file; give a run folder, an export or an ONNX file")
    # An export puts the class map beside its ONNX file.
    return OnnxParser(model, classes or model.with_suffix(".yaml"))


class RunParser:
    """A generator with the task segmentation, from a run folder or an exported folder."""

    # Measured to be the best (face_views.py).
    views: Views = "both"

    def __init__(self, model: Path) -> None:
        network, weights = load_parsing_network(model, "--model ")
        config = network.config
        self._engine = build_engine(config.runtime, Group(World(), devices.pick_device(World())))
        self._network = self._engine.prepare_module(network)
        self.size: tuple[int, int] = (config.data.image_size, config.data.image_size)
        self.identity = ParserIdentity(str(model), files.sha256(weights.file), {"views": self.views})

    def __call__(self, pixels_BHW3: np.ndarray) -> np.ndarray:
        image = image_from_pixels(torch.from_numpy(pixels_BHW3).to(self._engine.device))
        # In float32, without the run's autocast: the maps are made once and should repeat on other devices.
        with torch.inference_mode():
            return self._network(image).cpu().numpy()
