"""Versions of libraries, of Python, and of this package's own code, and which of them pyproject.toml admits."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

import collagan_dist
from collagan_dist.errors import ConfigError

# Name in messages: the distributions that may provide it (DALI has one for each CUDA version).
LIBRARIES = {
    "torch": ("torch",), "dali": ("nvidia-dali-cuda130", "nvidia-dali-cuda120"), "numpy": ("numpy",), "deepspeed": ("deepspeed",),
    "ray": ("ray",),
}  # fmt: skip

_EXTRA_OF_TOOLS = "dev"  # no command uses what it adds to the other extras
_EXTRAS_OF_DALI = ("cuda12", "cuda13")  # one of them is in every installation


@dataclass(frozen=True)
class Outside:
    """An installed library whose version pyproject.toml does not admit."""

    name: str
    installed: str
    admitted: str  # such as >=2.0

    def __str__(self) -> str:
        return f"{self.name} {self.installed} is installed, {self.name}{self.admitted} is needed"

    @property
    def mend(self) -> str:
        return f"pip install '{self.name}{self.admitted}'"


def outside_bounds(extras: bool) -> list[Outside]:
    """Return the installed libraries that lie outside pyproject.toml's bounds; with `extras` those of extras, too."""
    return [found for requirement in _requirements(extras) for found in _outside(requirement)]


def refuse_outside_bounds() -> None:
    """Raise ConfigError if a library that every command may use lies outside the bounds."""
    # Libraries of extras are left to those that use them: an old Ray is no reason not to train alone.
    if found := outside_bounds(extras=False):
        raise ConfigError("; ".join(f"{one}: {one.mend}" for one in found))


def _requirements(extras: bool) -> list[Requirement]:
    try:
        about = metadata.metadata("collagan_dist")
    except metadata.PackageNotFoundError:
        return []  # a checkout that nobody installed says nothing of versions
    names = [name for name in about.get_all("Provides-Extra") or () if name != _EXTRA_OF_TOOLS]
    names = names if extras else list(_EXTRAS_OF_DALI)
    lines = [Requirement(line) for line in about.get_all("Requires-Dist") or ()]
    wanted = (r for r in lines if not r.marker or any(r.marker.evaluate({"extra": name}) for name in ("", *names)))
    return list({r.name: r for r in wanted}.values())


def _outside(requirement: Requirement) -> Iterator[Outside]:
    try:
        version = metadata.version(requirement.name)
        # Builds of vendors are called 2.10.0a0+6ac8a2e, and are what became 2.10.0.
        base = Version(version).base_version
    except (metadata.PackageNotFoundError, InvalidVersion):
        return
    if not requirement.specifier.contains(base):
        yield Outside(requirement.name, version, str(requirement.specifier))


def library_version(name: str) -> str | None:
    """Return the installed version of a library of LIBRARIES, or None."""
    return _installed(name)[1]


def decoding_library() -> str:
    """Return what decodes pictures, which decides their grey levels (data/loading/decode.py)."""
    version = library_version("dali")
    return f"DALI {version}" if version else "libjpeg-turbo"


def dali_wheel() -> str | None:
    """Return the name of the installed distribution of DALI, or None."""
    return _installed("dali")[0]


def _installed(name: str) -> tuple[str, str] | tuple[None, None]:
    """Return distribution and version of a library of LIBRARIES."""
    # From the metadata: importing torch or Ray takes seconds.
    for distribution in LIBRARIES[name]:
        try:
            return distribution, metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None, None


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
