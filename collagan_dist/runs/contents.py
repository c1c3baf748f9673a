"""What the tensors of a checkpoint or an exported model must be, checked before any of them is loaded.

Hashes say that a file is as it was written. Whether it is of this network they do not say: a moment of another shape would be
written beyond the memory of its parameter, and a NaN would train on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from collagan_dist.errors import CheckpointError

Tensors = Mapping[str, torch.Tensor]

NETWORK_FILES = ("generator", "discriminators")
OPTIMIZER_FILE, AVERAGE_FILE = "optimizer", "ema"
LOSS_SCALE = "loss_scale"  # its name beside the parameters, for learners in fp16
_MOMENTS = ("exp_avg", "exp_avg_sq")
_STEP = "step"
_LARGEST_SCALE = 2.0**24
# Tensors that are sums of squares: below zero their root is NaN.
_NEVER_NEGATIVE = ("running_var", "/exp_avg_sq")
# Three steps that are not finite in a row roll a run back, so that after as many Adam has a state. (fp16 may skip more.)
_STEPS_WITHOUT_STATE = 3


def check_files(tensors: Mapping[str, Tensors], state: Mapping[str, Any]) -> None:
    """Raise CheckpointError unless a checkpoint has all files that its own state calls for, and no other ones."""
    needed = {*NETWORK_FILES, OPTIMIZER_FILE}
    # By the configuration that it was saved with: a run may begin to average later.
    if _averages(state["config"]):
        needed.add(AVERAGE_FILE)
    if missing := sorted(needed - tensors.keys()):
        raise CheckpointError(f"is incomplete: {_names(missing)} is missing")
    if foreign := sorted(tensors.keys() - needed - {AVERAGE_FILE}):
        raise CheckpointError(f"{_names(foreign)} is no file of a checkpoint")
    done = state["step"] - len(state["skipped_batches"])
    optimizer = tensors[OPTIMIZER_FILE]
    if done >= _STEPS_WITHOUT_STATE and not any(name.startswith("generator/") for name in optimizer):
        raise CheckpointError(f"is incomplete: {_names([OPTIMIZER_FILE])} has no state of the generator's Adam")


def _averages(config: Mapping[str, Any]) -> bool:
    optim = config.get("optim")
    decay = optim.get("ema") if isinstance(optim, dict) else None
    return isinstance(decay, int | float) and decay > 0


def _names(files: Iterable[str]) -> str:
    return ", ".join(f"{name[:100]}.safetensors" for name in files)


def check_tensors(file: str, found: Tensors, expected: Tensors) -> None:
    """Raise CheckpointError unless `found` has the names, shapes and types of a network's tensors, and finite values.

    `expected` may be on the device `meta`: its values are not read.
    """
    if missing := sorted(expected.keys() - found.keys()):
        raise CheckpointError(f"{file} is of another network: {_some(missing)} is missing")
    if foreign := sorted(found.keys() - expected.keys()):
        raise CheckpointError(f"{file} is of another network, which has no {_some(foreign)}")
    for name, tensor in expected.items():
        _check_kind(file, name, found[name], tensor.shape, tensor.dtype)
    check_values(file, found)


def check_moments(file: str, found: Tensors, learners: Mapping[str, Tensors]) -> None:
    """Raise CheckpointError unless `found` is Adam's state: step and both moments, of each parameter of a learner or of none.

    `learners` has the parameters of each learner by the prefix of its names in the file.
    """
    known: set[str] = set()
    for prefix, parameters in learners.items():
        entries = {f"{prefix}{name}/{key}": p for name, p in parameters.items() for key in (*_MOMENTS, _STEP)}
        known |= {*entries, f"{prefix}{LOSS_SCALE}"}
        present = entries.keys() & found.keys()
        # A learner that has not taken a step has no state at all.
        if present and (missing := sorted(entries.keys() - present)):
            raise CheckpointError(f"{file} is incomplete: {_some(missing)} is missing")
        for name in present:
            shape = torch.Size() if name.endswith(f"/{_STEP}") else entries[name].shape
            _check_kind(file, name, found[name], shape, torch.float32)
        if (scale := found.get(f"{prefix}{LOSS_SCALE}")) is not None:
            _check_scale(file, f"{prefix}{LOSS_SCALE}", scale)
    if foreign := sorted(found.keys() - known):
        raise CheckpointError(f"{file} is of another network, which has no {_some(foreign)}")
    check_values(file, found)


def _check_kind(file: str, name: str, tensor: torch.Tensor, shape: torch.Size, dtype: torch.dtype) -> None:
    if tensor.shape != shape:
        problem = f"{name} has shape {list(tensor.shape)}, the network's has {list(shape)}"
        raise CheckpointError(f"{file} is of another network: {problem}")
    if tensor.dtype != dtype:
        raise CheckpointError(f"{file}: {name} is of type {tensor.dtype}, the network's is of {dtype}")


def check_values(file: str, tensors: Tensors) -> None:
    """Raise CheckpointError where a tensor of a file has numbers that no training saves: NaN, infinite, a count below zero."""
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{file}: {name} holds numbers that are not finite")
        # Batches that a normalization has seen; steps of Adam.
        counts = not tensor.is_floating_point() or name.endswith(f"/{_STEP}")
        if (counts or name.endswith(_NEVER_NEGATIVE)) and bool((tensor < 0).any()):
            raise CheckpointError(f"{file}: {name} holds numbers below zero")


def _check_scale(file: str, name: str, scale: torch.Tensor) -> None:
    _check_kind(file, name, scale, torch.Size([2]), torch.float64)
    if not (0 < float(scale[0]) <= _LARGEST_SCALE and 0 <= float(scale[1]) < 1 << 32):
        raise CheckpointError(f"{file}: {name} is no scale of losses ({scale.tolist()})")


def _some(names: list[str]) -> str:
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return f"{names[0][:100]}{more}"
