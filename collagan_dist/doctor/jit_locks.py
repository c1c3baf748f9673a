"""Locks that a killed compilation of a torch extension leaves behind: every later start would wait for them, silently.

torch's file baton (torch.utils.file_baton) waits while the file `lock` exists in the folder of an extension, whoever made it.
DeepSpeed builds its operators that way; here none is built (distributed/deepspeed.py), but other programs of the user may wait.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# A compilation takes minutes, and on another node that shares the folder its processes are not seen.
STALE_AFTER = 1800.0


@dataclass(frozen=True)
class Lock:
    """A lock that nobody on this host works under. `age` in seconds, of the newest file beside it."""

    path: Path
    age: float

    @property
    def stale(self) -> bool:
        return self.age > STALE_AFTER


def extensions_folder() -> Path:
    """Where torch builds extensions."""
    own = os.environ.get("TORCH_EXTENSIONS_DIR")
    return Path(own) if own else Path.home() / ".cache" / "torch_extensions"


def abandoned() -> list[Lock]:
    """Locks under which no process of this host works, oldest first."""
    found = list(_locks(extensions_folder()))
    in_use = _folders_in_use() if found else set()
    return sorted(
        (Lock(path, _age(path.parent)) for path in found if path.parent.resolve() not in in_use),
        key=lambda lock: -lock.age,
    )


def _locks(folder: Path) -> Iterator[Path]:
    """FOLDER/[py311_cpu/]extension/lock"""
    for pattern in ("*/lock", "*/*/lock"):
        yield from folder.glob(pattern)


def _age(folder: Path) -> float:
    """Seconds since anything in a folder was changed, by the newer of the folder's clock and ours."""
    newest = 0.0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            newest = max(newest, path.stat().st_mtime)
    return time.time() - newest


def _folders_in_use() -> set[Path]:
    """Folders that running processes of this host work in: ninja and the compiler do in that of the extension."""
    folders = set()
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):  # it ended, or is another user's
            folders.add(link.resolve(strict=True))
    return folders
