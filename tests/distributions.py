"""Installed distributions as importlib.metadata finds them, made by tests."""

from pathlib import Path


def install(folder: Path, name: str, version: str, *requires: str) -> None:
    """Make `name` an installed distribution of this version for those that have `folder` first on their path."""
    about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    extras = sorted({line.split("extra == ")[1].strip("'") for line in requires if "extra == " in line})
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {line}" for line in requires] + [f"Provides-Extra: {extra}" for extra in extras]
    (about / "METADATA").write_text("\n".join(lines) + "\n")
