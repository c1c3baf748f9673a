"""`collagan export`: the generator that evaluation uses, as a folder of its own (`exported.py` says what is in it)."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from collagan_dist import __version__, files
from collagan_dist.config import strict_yaml
from collagan_dist.config.load import model_label, to_yaml
from collagan_dist.config.tree import Config
from collagan_dist.errors import ConfigError
from collagan_dist.models.registry import METHODS, build_generator
from collagan_dist.runs.model_folder import (
    CONFIG_FILE,
    DISCRIMINATORS_FILE,
    FORMAT,
    GENERATOR_FILE,
    MANIFEST_FILE,
    ONNX_FILE,
    InferenceWeights,
    read_config,
    read_inference_weights,
)
from collagan_dist.tasks import build_tasks
from collagan_dist.types import CLASSES

_CLASS_MAP = """# What `collagan label --model {onnx}` needs to know of {onnx}.
# Input x: (B, 3, {size}, {size}), RGB in [-1, 1]; outputs: {outputs}, float32.
"""


def export(model: Path, out: Path, onnx: bool = False) -> dict[str, Any]:
    """Write the exported folder `out`; its manifest. The folder appears whole or not at all.

    Raises ConfigError when `out` is not empty, or when `onnx` needs a package that is missing or is asked of a model that searches.
    """
    if "://" in str(out) or str(out).split("/")[0].endswith(":"):
        raise ConfigError(f"{out}: is a URL; export to a folder, then upload it as it is")
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: is not empty; give another --out, or remove it")
    if onnx:
        _require_onnx()
    config = read_config(model)
    judges = METHODS[config.model.name].predictor.needs_discriminators
    if onnx and judges:
        raise ConfigError(
            f"--onnx: {model} is {model_label(config.model)}, which searches at test; an ONNX file of its generator "
            "completes nothing. Export it without --onnx"
        )
    config = config.model_copy(update={"data": config.data.model_copy(update={"shards": None})})
    scored = read_inference_weights(model)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        files.write_text(partial / CONFIG_FILE, to_yaml(config))
        shutil.copyfile(scored.file, partial / GENERATOR_FILE)  # its bytes, so that its hash stays the model's
        if judges:
            shutil.copyfile(scored.discriminators_file, partial / DISCRIMINATORS_FILE)
        if onnx:
            _write_onnx(partial, scored, config)
        manifest = {
            "format": FORMAT,
            "model": model_label(config.model),
            "step": scored.step,
            "version": __version__,
            "sha256": {path.name: files.sha256(path) for path in sorted(partial.iterdir())},
        }
        files.write_json(partial / MANIFEST_FILE, manifest)
        for path in partial.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        partial.replace(out)
        files.fsync_folder(out.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest


class ByTask(nn.Module):
    """The generator as its ONNX file has it: a picture in, one output a task; no keys, since dropout is off."""

    def __init__(self, generator: nn.Module, channels: list[int]) -> None:
        super().__init__()
        self.generator, self.channels = generator, channels

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.generator(x, None).split(self.channels, dim=1)


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"--onnx: the package {error.name} is missing; pip install onnx onnxscript") from None


def _write_onnx(folder: Path, scored: InferenceWeights, config: Config) -> None:
    tasks = build_tasks(config)
    generator = build_generator(config, tasks)
    scored.load_generator(generator)
    network = ByTask(generator, [task.channels for task in tasks.values()]).eval()
    size = config.data.image_size
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, whose operators we have none of
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            network,
            (torch.zeros(2, 3 + config.model.mask_channel, size, size),),
            str(folder / ONNX_FILE),
            dynamo=True,
            input_names=["x"],
            output_names=list(tasks),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    if "segmentation" in tasks and not config.model.mask_channel:
        head = _CLASS_MAP.format(onnx=ONNX_FILE, size=size, outputs=", ".join(tasks))
        files.write_text(folder / Path(ONNX_FILE).with_suffix(".yaml"), head + strict_yaml.dump(_class_map()))


def _class_map() -> dict[str, Any]:
    return {
        "classes": {name: [number] for number, name in enumerate(CLASSES)},
        "sides": "picture",
        "input": {"channels": "rgb", "range": 1, "mean": [0.5] * 3, "std": [0.5] * 3, "views": "both"},
        "output": {"name": "segmentation"},
    }
