"""A trained model on disk, for use: a run folder (its newest checkpoint) or an exported folder.

An exported folder holds one generator and what its use needs, without the run that trained it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from collagan_dist import files, shell, structured
from collagan_dist.config.load import load_config
from collagan_dist.config.tree import Config
from collagan_dist.errors import CheckpointError, ConfigError
from collagan_dist.runs import checkpoint, contents
from collagan_dist.runs.checkpoint_state import parse_state
from collagan_dist.runs.layout import DataRecord, RunPaths

FORMAT = 1
# The files of an exported folder.
CONFIG_FILE = "config.yaml"  # the run's configuration, without the location of its shards
GENERATOR_FILE = "generator.safetensors"  # the generator that evaluation uses
DISCRIMINATORS_FILE = "discriminators.safetensors"  # for a model that completes with them (SII)
ONNX_FILE = "model.onnx"  # with --onnx: the same network; model.yaml beside it is the class map for `collagan label`
PROGRAM_FILE = "model.pt2"  # with --torch: the same network as a program of torch.export
CARD_FILE = "README.md"  # the model card, for people
MANIFEST_FILE = "manifest.json"  # sha256 of each file, step, model, version; written last
# Keys of a configuration that change how a model is evaluated, not what it learned.
_CHANGEABLE = ("evaluate.", "runtime.", "data.cache.", "data.keep=", "data.threads=", "data.max_damaged=")

Tensors = dict[str, torch.Tensor]


class _Export(checkpoint.CheckpointManifest):
    format: Literal[1]


def is_exported(folder: Path) -> bool:
    return (folder / MANIFEST_FILE).is_file() and not RunPaths(folder).checkpoints.is_dir()


def read_config(model: Path, shards: str | None = None, sets: Iterable[str] = ()) -> Config:
    """Return the configuration of a run folder or an exported one. A run's shards are found from any folder.

    `sets` change how the model is evaluated; what it learned cannot be changed. Raises ConfigError.
    """
    for item in sets:
        if not item.startswith(_CHANGEABLE):
            raise ConfigError(f"--set {item}: only how a model is evaluated can be changed here: evaluate.*, runtime.*")
    paths = RunPaths(model)
    _check_folder(paths)
    # data.json has the absolute path; config.yaml has what the user typed, perhaps relative to another folder.
    if not shards and (data := structured.find(paths.data, DataRecord)) is not None:
        shards = data.shards
    return load_config(str(paths.config), sets=sets, shards=shards)


def _check_folder(paths: RunPaths) -> None:
    if paths.exists():
        return
    name, hint = str(paths.folder), "give a folder that `collagan train` or `collagan export` wrote"
    if ":/" in name:
        name = re.sub(r"^(\w+):/", r"\1://", name)  # a Path of a URL
        hint = f"of a URL only evaluate, complete, export and report take the copies of a run; else {hint}"
    raise ConfigError(f"{name}: is no run folder (no config.yaml); {hint}")


@dataclass(frozen=True)
class InferenceParameters:
    """Tensors of the networks that inference uses: the averaged generator if the run has one.

    `file` is the generator's file. `discriminators` is None where an exported folder has none.
    """

    file: Path
    step: int
    generator: Tensors
    discriminators: Tensors | None = None

    @property
    def discriminators_file(self) -> Path:
        return self.file.with_name(DISCRIMINATORS_FILE)

    @property
    def sha256(self) -> str:
        """Without discriminators the hash of the generator's file; else the hash of both files' hashes."""
        hashes = [files.sha256(self.file)]
        if self.discriminators is None:
            return hashes[0]
        return hashlib.sha256("".join([*hashes, files.sha256(self.discriminators_file)]).encode()).hexdigest()

    def check_generator(self, network: torch.nn.Module) -> None:
        """Raise CheckpointError unless the tensors are those of `network`, which may be on the device `meta`."""
        _check(self.file, self.generator, network)

    def load_generator(self, network: torch.nn.Module) -> None:
        self.check_generator(network)
        network.load_state_dict(self.generator)

    def check_discriminators(self, network: torch.nn.Module) -> None:
        """Raise CheckpointError unless there are discriminators and they are those of `network`."""
        if self.discriminators is None:
            problem = "is missing, and this model completes with it; export the run again"
            raise CheckpointError(f"{self.discriminators_file}: {problem}")
        _check(self.discriminators_file, self.discriminators, network)

    def load_discriminators(self, network: torch.nn.Module) -> None:
        self.check_discriminators(network)
        network.load_state_dict(self.discriminators or {})


def _check(file: Path, tensors: Tensors, network: torch.nn.Module) -> None:
    try:
        contents.check_tensors(file.name, tensors, network.state_dict())
    except CheckpointError as error:
        raise CheckpointError(f"{file.parent}: {error}; its config.yaml says which network it is") from None


def read_inference_parameters(model: Path) -> InferenceParameters:
    """Read the newest networks of a run folder, or those of an exported one. Raises ConfigError for another folder, CheckpointError.

    Every byte is checked against its sha256.
    """
    # An export has no checkpoints to fall back to, so any damage is an error.
    if is_exported(model):
        return _read_exported(model)
    found = checkpoint.load_latest(RunPaths(model).checkpoints)
    if found is None:
        _check_folder(RunPaths(model))
        command = shell.collagan("train", RunPaths(model).config, "--out", model)
        raise CheckpointError(f"{model}: holds no checkpoint yet; train it first: {command}")
    state = parse_state(found.path, found.state)
    try:
        contents.check_files(found.tensors, state)
    except CheckpointError as error:
        raise CheckpointError(f"{found.path}: {error}") from None
    # As in the evaluations during training: the moving average, if there is one.
    name = "ema" if "ema" in found.tensors else "generator"
    file = found.path / f"{name}.safetensors"
    return InferenceParameters(file, int(found.state["step"]), found.tensors[name], found.tensors["discriminators"])


def _read_exported(folder: Path) -> InferenceParameters:
    try:
        manifest = checkpoint.read_record(folder, MANIFEST_FILE, _Export)
        # Exports of models that complete by the generator alone have no discriminators.
        names = [GENERATOR_FILE, *({DISCRIMINATORS_FILE} & manifest.sha256.keys())]
        for name in (CONFIG_FILE, *names):
            checkpoint.check_file(folder, name, manifest.sha256[name])
        tensors = {name: load_file(folder / name) for name in names}
    except CheckpointError as error:
        raise CheckpointError(f"{error}; export the run again") from None
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(f"{folder}: is a damaged export ({error}); export the run again") from None
    except OSError as error:
        raise checkpoint.unreadable(folder, error) from None
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: is a damaged export ({error}); export the run again") from None
    return InferenceParameters(
        folder / GENERATOR_FILE, manifest.step, tensors[GENERATOR_FILE], tensors.get(DISCRIMINATORS_FILE)
    )
