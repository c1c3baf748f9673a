"""What this process is made of: versions of libraries, and a hash of the package's own code."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

import collagan_dist

# What ranks must share, by the name people know: the distributions that may hold it.
LIBRARIES = {
    "torch": ("torch",), "dali": ("nvidia-dali-cuda130", "nvidia-dali-cuda120"), "numpy": ("numpy",), "deepspeed": ("deepspeed",),
    "ray": ("ray",),
}  # fmt: skip


def library_version(name: str) -> str | None:
    """The installed version of a library of LIBRARIES, without importing it; None where it is not installed."""
    for distribution in LIBRARIES[name]:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def python_version() -> str:
    """Major and minor: patches do not matter."""
    return ".".join(platform.python_version_tuple()[:2])


@cache
def code_version() -> str:
    """This package's version and a hash of its Python files: an edited checkout is another version."""
    folder, digest = Path(collagan_dist.__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        digest.update(path.read_bytes() + b"\0")
    return f"{collagan_dist.__version__} ({digest.hexdigest()[:8]})"
