"""Locks that a killed compilation of a torch extension left behind: every later compilation would wait for them.

torch.utils.file_baton waits, without a message, while the file `lock` exists in an extension's folder. DeepSpeed
compiles its operators that way. collagan compiles none, but the user's other programs may.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Lock:
    """A lock in a folder in which no process of this host works. `age` is that of the newest file beside it, in seconds."""

    # It is shown rather than judged: a compilation on another node that shares the folder cannot be seen from here.

    path: Path
    age: float


def extensions_folder() -> Path:
    """Return where torch compiles extensions."""
    # As in torch.utils.cpp_extension, whose import takes seconds.
    own = os.environ.get("TORCH_EXTENSIONS_DIR")
    return Path(own) if own else Path.home() / ".cache" / "torch_extensions"


def find_abandoned_locks() -> list[Lock]:
    """Return the locks in whose folders no process of this host works, oldest first."""
    paths = list(_lock_files(extensions_folder()))
    in_use = _working_directories() if paths else set()
    locks = (Lock(path, _age(path.parent)) for path in paths if path.parent.resolve() not in in_use)
    return sorted(locks, key=lambda lock: -lock.age)


def _lock_files(folder: Path) -> Iterator[Path]:
    # FOLDER/[py311_cpu/]EXTENSION/lock: newer versions of torch have a folder for each Python.
    for pattern in ("*/lock", "*/*/lock"):
        yield from folder.glob(pattern)


def _age(folder: Path) -> float:
    """Return the seconds since a file in the folder was last changed."""
    newest = 0.0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # a compiler removes its temporary files
            newest = max(newest, path.stat().st_mtime)
    return time.time() - newest


def _working_directories() -> set[Path]:
    # ninja and the compiler run in the extension's folder.
    folders = set()
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):  # the process has ended, or is another user's
            folders.add(link.resolve(strict=True))
    return folders
