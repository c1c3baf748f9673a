"""What must survive: a folder of safetensors and JSON, whole and hashed, or not there at all.

checkpoints/step-00001000/ is written as .step-00001000, flushed, described by manifest.json (sha256 of each file) and
renamed. No library format checks its bytes: a flipped bit loads as another number, so the hashes are ours. Nothing is
pickled, so a checkpoint from elsewhere can hurt nobody.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialize

from collagan_dist import files
from collagan_dist.errors import CheckpointError

FORMAT = 1
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Loaded:
    path: Path
    tensors: dict[str, dict[str, torch.Tensor]]
    state: dict[str, Any]


def save(folder: Path, step: int, tensors: Mapping[str, Tensors], state: Mapping[str, Any], keep: int) -> Path:
    """Write folder/step-N with `NAME.safetensors` for each name of `tensors`; the `keep` newest stay.

    Raises CheckpointError when there is no room; the former checkpoint is untouched then.
    """
    final = folder / f"step-{step:08d}"
    partial = folder / f".{final.name}"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        for name, content in tensors.items():
            # One copy of each tensor in plain layout: views and channels_last do not travel.
            plain = {key: value.detach().cpu().contiguous().clone() for key, value in content.items()}
            # Not save_file: its errors do not say that the disk is full.
            (partial / f"{name}.safetensors").write_bytes(serialize(plain))
        files.write_json(partial / "state.json", {"format": FORMAT, **state})
        hashes = {path.name: files.sha256(path) for path in sorted(partial.iterdir())}
        for path in partial.iterdir():
            _flush(path)
        files.write_json(partial / "manifest.json", {"step": step, "sha256": hashes})
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        free = shutil.disk_usage(folder).free >> 20
        raise CheckpointError(
            f"{final}: no space left ({free} MB free); make room, the former checkpoint is intact"
        ) from None
    shutil.rmtree(final, ignore_errors=True)
    partial.replace(final)
    files.sync_folder(folder)
    _prune(folder, keep)
    return final


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints of a folder, oldest first."""
    found = folder.glob("step-*") if folder.is_dir() else ()
    return sorted(int(path.name.removeprefix("step-")) for path in found if path.name[5:].isdigit())


def load_latest(folder: Path, warn: Callable[[str], None]) -> Loaded | None:
    """The newest checkpoint that is whole; None when there is none at all.

    A damaged one is named through `warn` and the one before it is taken; CheckpointError when all are damaged.
    """
    damaged = []
    for step in reversed(steps(folder)):
        path = folder / f"step-{step:08d}"
        try:
            return load(path)
        except CheckpointError as error:
            damaged.append(str(error))
            warn(str(error))
    if damaged:
        raise CheckpointError(f"{folder}: no checkpoint is whole; remove the folder to start anew")
    return None


def load(path: Path) -> Loaded:
    """A checkpoint, every byte checked against its manifest. Raises CheckpointError."""
    try:
        hashes = json.loads((path / "manifest.json").read_bytes())["sha256"]
        for name, expected in hashes.items():
            if "/" in name or files.sha256(path / name) != expected:
                raise CheckpointError(f"{path}: {name} is damaged (its sha256 differs from the manifest's)")
        state = json.loads((path / "state.json").read_bytes())
        names = [name for name in hashes if name.endswith(".safetensors")]
        tensors = {name.removesuffix(".safetensors"): load_file(path / name) for name in names}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: is damaged ({error})") from None
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: is of format {state.get('format')}, this program reads format {FORMAT}")
    return Loaded(path, tensors, state)


def _prune(folder: Path, keep: int) -> None:
    for step in steps(folder)[:-keep]:
        # Renamed first: a checkpoint that is being removed must not look like one.
        doomed = folder / f".old-{step:08d}"
        shutil.rmtree(doomed, ignore_errors=True)
        (folder / f"step-{step:08d}").replace(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
    for path in folder.glob(".*"):
        shutil.rmtree(path, ignore_errors=True)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
