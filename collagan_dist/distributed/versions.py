"""Versions of libraries, of Python, and of this package's own code."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

import collagan_dist

# Name in messages: the distributions that may provide it (DALI has one for each CUDA version).
LIBRARIES = {
    "torch": ("torch",), "dali": ("nvidia-dali-cuda130", "nvidia-dali-cuda120"), "numpy": ("numpy",), "deepspeed": ("deepspeed",),
    "ray": ("ray",),
}  # fmt: skip


def library_version(name: str) -> str | None:
    """Return the installed version of a library of LIBRARIES, or None."""
    # From the metadata: importing torch or Ray takes seconds.
    for distribution in LIBRARIES[name]:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def python_version() -> str:
    """Return major and minor version: patch releases may differ between nodes."""
    return ".".join(platform.python_version_tuple()[:2])


@cache
def code_version() -> str:
    """Return the package's version and a hash of its Python files."""
    # A checkout that was edited on one node has the same version number.
    folder, digest = Path(collagan_dist.__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        digest.update(path.read_bytes() + b"\0")
    return f"{collagan_dist.__version__} ({digest.hexdigest()[:8]})"
