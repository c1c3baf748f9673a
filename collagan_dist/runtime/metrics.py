"""Where numbers go: one stream of records, JSON Lines first."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from collagan_dist import files


def finite(tree: Any) -> Any:
    """The tree without the leaves that are not finite: NaN never appears in a file."""
    if isinstance(tree, dict):
        pruned = {key: finite(value) for key, value in tree.items()}
        return {key: value for key, value in pruned.items() if value is not None and value != {}}
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


class MetricsFile:
    """metrics.jsonl of a run folder, one object a line.

    Opened at `step`, it drops what an earlier start wrote beyond that step (the coming steps write it again, equal) and
    a last line that a kill cut short. Events stay. Lines for which there is no room wait for it. Nothing is written once
    `mine` says that the folder is another start's.
    """

    def __init__(self, path: Path, step: int, mine: Callable[[], bool] = lambda: True) -> None:
        self.path, self._mine = path, mine
        kept = [line for line in _whole_lines(path) if _stays(line, step)]
        files.write_text(path, "".join(f"{line}\n" for line in kept))
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._waiting = b""

    def write(self, kind: str, step: int, record: dict[str, Any]) -> None:
        line = json.dumps({"kind": kind, "step": step, **finite(record)}, allow_nan=False)
        told = bool(self._waiting)
        self._waiting += f"{line}\n".encode()
        self._flush(told)

    def _flush(self, told: bool) -> None:
        """Write what waits, as far as it goes: a line of which only a part fitted is completed later."""
        try:
            while self._waiting and self._mine():
                self._waiting = self._waiting[os.write(self._file, self._waiting) :]
        except OSError as error:
            if not told:
                text = f"warning: {self.path}: {error.strerror}; its lines wait until they can be written"
                print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        self._flush(told=True)
        if self._waiting and self._mine():
            lost = self._waiting.count(b"\n")
            print(f"warning: {self.path}: {lost} lines could not be written", file=sys.stderr, flush=True)
        os.close(self._file)


def _whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    return [line.decode() for line in path.read_bytes().split(b"\n")[:-1] if line]


def _stays(line: str, step: int) -> bool:
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return record.get("kind") == "event" or record.get("step", 0) <= step
