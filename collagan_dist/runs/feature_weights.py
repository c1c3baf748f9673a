"""The hash of the weights behind evaluate.features, which may be a run folder, an exported folder or a file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from collagan_dist import files
from collagan_dist.errors import ConfigError
from collagan_dist.runs.layout import MANIFEST_FILE, RunPaths

_DIGITS = 16  # of the sha256, as many as tell networks apart


def weights_hash(features: str) -> str:
    """Return hexadecimal digits of the sha256 of the weights that are read now. Raises ConfigError, CheckpointError."""
    path = Path(features)
    if not path.exists():
        raise ConfigError(f"evaluate.features: {path}: no such folder or file")
    return _hash(path, _state(path))


def _state(path: Path) -> tuple[object, ...]:
    """Return what changes with the weights, without reading them."""
    marks = (
        [path / MANIFEST_FILE, *(RunPaths(path).checkpoints.glob(f"*/{MANIFEST_FILE}"))] if path.is_dir() else [path]
    )
    found = [(str(mark), mark.stat()) for mark in sorted(marks) if mark.is_file()]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in found)


@lru_cache(maxsize=64)  # a reproduction asks for every cell of its tables
def _hash(path: Path, state: tuple[object, ...]) -> str:
    # Here, since it imports torch, which the names of evaluations do without.
    from collagan_dist.runs.model_folder import read_inference_parameters

    return files.sha256(read_inference_parameters(path).file if path.is_dir() else path)[:_DIGITS]
