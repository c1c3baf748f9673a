"""Files of shards/, cluster/ and slurm/: recipes and search spaces by name, batch scripts, and copies of all of them.

A checkout has these folders beside the package; a wheel has them inside of it, as pyproject.toml says.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path

import collagan_dist
from collagan_dist import files
from collagan_dist.config import strict_yaml
from collagan_dist.errors import ConfigError

FOLDERS = ("shards", "cluster", "slurm")
# cluster/ has other YAML files too, so a search space is known by what it searches.
_SPACES = {"lambda": "sweep.yaml"}
_MAX_NAMED = 5  # files that a message names


def _project() -> Path:
    package = Path(collagan_dist.__file__).parent
    inside = package / "project"
    # Asked first: what lies beside an installed package belongs to others. A checkout has no such folder.
    return inside if inside.is_dir() else package.parent


def project_folder(name: str) -> Path:
    """Return one of FOLDERS, of the wheel or of the checkout that this package is part of. Raises ConfigError."""
    folder = _project() / name
    if not folder.is_dir():
        raise ConfigError(
            f"{folder}: this installation lacks the folder; install the wheel, or a checkout by `pip install -e`"
        )
    return folder


def recipes() -> dict[str, Path]:
    """Return the recipes that `collagan pack` knows by name."""
    return {path.stem: path for path in sorted((_project() / "shards").glob("*.yaml"))}


def search_spaces() -> dict[str, Path]:
    """Return the search spaces that `collagan sweep --space` knows by name."""
    return {name: _project() / "cluster" / file for name, file in _SPACES.items()}


def read_named(source: str, what: str, known: Mapping[str, Path]) -> tuple[str, str]:
    """Return the text of a YAML file given by path or by a `known` name, and how errors call it.

    A file of that name in the current folder wins. Raises ConfigError with the names that there are.
    """
    here = Path(source)
    if source in known and not here.is_file():
        return strict_yaml.read_text(known[source], what, "install the package again"), f"{what} {source}"
    near = _nearest(source, known)
    hint = f"{near}{'K' if near else 'k'}nown by name: {', '.join(known)}"
    if here.exists() or "/" in source or here.suffix in (".yaml", ".yml"):
        return strict_yaml.read_text(source, what, hint), source
    raise ConfigError(f"there is no {what} {source!r}; {hint}; or give a YAML file")


def _nearest(source: str, known: Mapping[str, Path]) -> str:
    """Return a question for the known name that was probably meant, or ""."""
    # The path that a file has in a checkout is not there beside an installed package.
    same = [name for name, path in known.items() if path.name == Path(source).name]
    near = same or difflib.get_close_matches(Path(source).stem, known, 1)
    return f"did you mean {near[0]}? " if near else ""


def copy_project(folder: Path) -> tuple[list[Path], list[Path]]:
    """Write all files of FOLDERS into `folder`; return those that were written and those that were there already.

    Raises ConfigError, before anything is written, where a file is there with other content.
    """
    content = {
        folder / name / path.name: path.read_bytes()
        for name in FOLDERS
        for path in sorted(project_folder(name).iterdir())
        if path.is_file() and not path.name.startswith(".")
    }
    there = [target for target in content if os.path.lexists(target)]
    if changed := [str(target) for target in there if not _holds(target, content[target])]:
        names = ", ".join(changed[:_MAX_NAMED]) + (", …" if len(changed) > _MAX_NAMED else "")
        raise ConfigError(
            f"{names}: would be overwritten, with other content; move away what you changed, or give another folder"
        )
    _make_folders(folder)
    written = [target for target in content if target not in there]
    for target in written:
        files.write_bytes(target, content[target])
    return written, there


def _holds(target: Path, content: bytes) -> bool:
    try:
        return files.read_regular(target, len(content)) == content
    except OSError:  # longer, a folder, a link to nothing
        return False


def _make_folders(folder: Path) -> None:
    # All of them before the first file: what is in the way of one is found before anything is written.
    for one in (folder / name for name in FOLDERS):
        try:
            one.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{one}: cannot be made ({error.strerror}); give another folder") from None
