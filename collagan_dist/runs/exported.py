"""The exported folder: one generator and what is needed to use it, without the run that trained it.

config.yaml             the run's configuration, without the place of its shards
generator.safetensors   the generator that evaluation uses
discriminators.safetensors   for a model that completes with them (SII)
model.onnx, model.yaml  with `--onnx`: the same network, and the class map that `collagan label` needs beside it
manifest.json           sha256 of each file, step, model, version; written last
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from collagan_dist import files
from collagan_dist.errors import CheckpointError

FORMAT = 1
CONFIG, WEIGHTS, ONNX, MANIFEST = "config.yaml", "generator.safetensors", "model.onnx", "manifest.json"
DISCRIMINATORS_FILE = "discriminators.safetensors"


def is_exported(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() and not (folder / "checkpoints").is_dir()


def read_exported(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, torch.Tensor]]]:
    """(manifest, tensors by file) of an exported folder, its bytes checked. Raises CheckpointError that names what is damaged."""
    from safetensors.torch import load_file

    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT:
            raise CheckpointError(
                f"{folder}: is of format {manifest['format']}, this program reads format {FORMAT}; export the run again"
            )
        weights = [name for name in (WEIGHTS, DISCRIMINATORS_FILE) if name == WEIGHTS or name in manifest["sha256"]]
        for name in (CONFIG, *weights):
            if files.sha256(folder / name) != manifest["sha256"][name]:
                raise CheckpointError(
                    f"{folder / name}: is damaged or edited (its sha256 differs from the manifest's); export the run again"
                )
        return {"step": int(manifest["step"]), **manifest}, {name: load_file(folder / name) for name in weights}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: is a damaged export ({error}); export the run again") from None
