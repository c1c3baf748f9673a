"""`collagan export`: write the generator that evaluation uses as a folder (its files: runs/model_folder.py)."""

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
from collagan_dist.models.registry import MODEL_KINDS, build_generator
from collagan_dist.runs import model_folder
from collagan_dist.tasks import build_tasks
from collagan_dist.types import CLASSES

_CLASS_MAP = """# What `collagan label --model {onnx}` needs to know of {onnx}.
# Input x: (B, 3, {size}, {size}), RGB in [-1, 1]; outputs: {outputs}, float32.
"""


def export(model: Path, out: Path, onnx: bool = False) -> dict[str, Any]:
    """Write the exported folder `out` and return its manifest. The folder appears when it is complete.

    Raises ConfigError when `out` is not empty, a package for `onnx` is missing, or the model cannot be exported as ONNX;
    DiskFull.
    """
    out = _check_out(out)
    if onnx:
        _require_onnx()
    config = model_folder.read_config(model)
    needs_discriminators = MODEL_KINDS[config.model.name].predictor.needs_discriminators
    if onnx and needs_discriminators:
        raise ConfigError(
            f"--onnx: {model} is {model_label(config.model)}, which searches at test; an ONNX file of its generator "
            "completes nothing. Export it without --onnx"
        )
    # The location of the shards may be private, and means nothing elsewhere.
    config = config.model_copy(update={"data": config.data.model_copy(update={"shards": None})})
    weights = model_folder.read_inference_parameters(model)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        with files.naming_full_disk(out):
            partial.mkdir()
            manifest = _write_folder(partial, weights, config, onnx)
            _publish(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest


def _write_folder(
    partial: Path, weights: model_folder.InferenceParameters, config: Config, onnx: bool
) -> dict[str, Any]:
    """Write the files of an exported folder, the manifest last, and return it."""
    files.write_text(partial / model_folder.CONFIG_FILE, to_yaml(config))
    # Copied byte by byte, so that the file's sha256 stays that of the checkpoint.
    shutil.copyfile(weights.file, partial / model_folder.GENERATOR_FILE)
    if MODEL_KINDS[config.model.name].predictor.needs_discriminators:
        shutil.copyfile(weights.discriminators_file, partial / model_folder.DISCRIMINATORS_FILE)
    if onnx:
        _write_onnx(partial, weights, config)
    manifest = _manifest(partial, config, weights.step)
    files.write_json(partial / model_folder.MANIFEST_FILE, manifest)
    return manifest


def _check_out(out: Path) -> Path:
    """Return the absolute path of the folder to write. Raises ConfigError when it is a URL or holds something."""
    # pathlib turns s3://bucket into s3:/bucket, which would become a local folder of that name.
    if "://" in str(out) or str(out).split("/")[0].endswith(":"):
        raise ConfigError(f"{out}: is a URL; export to a folder, then upload it as it is")
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: is not empty; give another --out, or remove it")
    return out


def _manifest(folder: Path, config: Config, step: int) -> dict[str, Any]:
    return {
        "format": model_folder.FORMAT,
        "model": model_label(config.model),
        "step": step,
        "version": __version__,
        "sha256": {path.name: files.sha256(path) for path in sorted(folder.iterdir())},
    }


def _publish(partial: Path, out: Path) -> None:
    # The files first: after a power cut, a renamed folder could otherwise hold empty ones.
    for path in partial.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    partial.replace(out)
    files.fsync_folder(out.parent)


class SplitOutputs(nn.Module):
    """The network of the ONNX file: an image in, one output per task. It has no keys, since dropout is off."""

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
        raise ConfigError(f"--onnx: the package {error.name} is missing; pip install 'collagan_dist[onnx]'") from None


def _write_onnx(folder: Path, weights: model_folder.InferenceParameters, config: Config) -> None:
    tasks = build_tasks(config)
    generator = build_generator(config, tasks)
    weights.load_generator(generator)
    network = SplitOutputs(generator, [task.channels for task in tasks.values()]).eval()
    size = config.data.image_size
    # It warns that torchvision is missing, whose operators these networks do not use.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            network,
            # Two samples: torch.export takes a dimension of size 1 for a constant.
            (torch.zeros(2, 3 + config.model.mask_channel, size, size),),
            str(folder / model_folder.ONNX_FILE),
            dynamo=True,
            input_names=["x"],
            output_names=list(tasks),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    # `collagan label` gives three channels, so a network with the hole as input cannot serve it.
    if "segmentation" in tasks and not config.model.mask_channel:
        head = _CLASS_MAP.format(onnx=model_folder.ONNX_FILE, size=size, outputs=", ".join(tasks))
        files.write_text(
            folder / Path(model_folder.ONNX_FILE).with_suffix(".yaml"), head + strict_yaml.dump(_class_map())
        )


def _class_map() -> dict[str, Any]:
    return {
        "classes": {name: [number] for number, name in enumerate(CLASSES)},
        "sides": "picture",
        "input": {"channels": "rgb", "range": 1, "mean": [0.5] * 3, "std": [0.5] * 3, "views": "both"},
        "output": {"name": "segmentation"},
    }
