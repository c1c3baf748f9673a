"""`collagan export`: write the generator that evaluation uses as a folder (its files: runs/model_folder.py)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collagan_dist import __version__, files
from collagan_dist.config.load import model_label, to_yaml
from collagan_dist.config.tree import Config
from collagan_dist.errors import ConfigError
from collagan_dist.inference import network_files
from collagan_dist.inference.model_card import NetworkFile, model_card
from collagan_dist.models.registry import MODEL_KINDS
from collagan_dist.runs import model_folder


def export(model: Path, out: Path, onnx: bool = False, program: bool = False) -> dict[str, Any]:
    """Write the exported folder `out` and return its manifest. The folder appears when it is complete.

    `onnx` adds model.onnx, `program` model.pt2 (torch.export's). Raises ConfigError when `out` is not empty, a package for `onnx` is
    missing, or the model has no such files; NumericError when these do not compute what the network does; DiskFull.
    """
    out = _check_out(out)
    if onnx:
        network_files.require_onnx()
    config = model_folder.read_config(model)
    needs_discriminators = MODEL_KINDS[config.model.name].predictor.needs_discriminators
    if (onnx or program) and needs_discriminators:
        option, what = ("--onnx", "an ONNX file") if onnx else ("--torch", "a program")
        raise ConfigError(
            f"{option}: {model} is {model_label(config.model)}, which searches at test; {what} of its generator "
            f"completes nothing. Export it without {option}"
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
            _copy_weights(partial, weights, config)
            networks = network_files.write_network_files(partial, weights, config, onnx, program)
            files.write_text(partial / model_folder.CARD_FILE, model_card(model, config, weights.step, networks))
            manifest = _manifest(partial, config, weights.step, networks)
            files.write_json(partial / model_folder.MANIFEST_FILE, manifest)
            _publish(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest


def _copy_weights(partial: Path, weights: model_folder.InferenceParameters, config: Config) -> None:
    files.write_text(partial / model_folder.CONFIG_FILE, to_yaml(config))
    # Copied byte by byte, so that the file's sha256 stays that of the checkpoint.
    shutil.copyfile(weights.file, partial / model_folder.GENERATOR_FILE)
    if MODEL_KINDS[config.model.name].predictor.needs_discriminators:
        shutil.copyfile(weights.discriminators_file, partial / model_folder.DISCRIMINATORS_FILE)


def _check_out(out: Path) -> Path:
    """Return the absolute path of the folder to write. Raises ConfigError when it is a URL or holds something."""
    # pathlib turns s3://bucket into s3:/bucket, which would become a local folder of that name.
    if "://" in str(out) or str(out).split("/")[0].endswith(":"):
        raise ConfigError(f"{out}: is a URL; export to a folder, then upload it as it is")
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: is not empty; give another --out, or remove it")
    return out


def _manifest(folder: Path, config: Config, step: int, networks: Sequence[NetworkFile]) -> dict[str, Any]:
    return {
        "format": model_folder.FORMAT,
        "model": model_label(config.model),
        "step": step,
        "version": __version__,
        # By which program, and the largest difference from torch.
        "compared": {one.name: {"by": one.compared_by, "difference": one.difference} for one in networks},
        "sha256": {path.name: files.sha256(path) for path in sorted(folder.iterdir())},
    }


def _publish(partial: Path, out: Path) -> None:
    # The files first: after a power cut, a renamed folder could otherwise hold empty ones.
    for path in partial.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    partial.replace(out)
    files.fsync(out.parent)
