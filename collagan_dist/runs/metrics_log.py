"""Where numbers go: one stream of records, JSON Lines first."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from collagan_dist import files
from collagan_dist.runs import tensorboard
from collagan_dist.runs.append_file import AppendFile
from collagan_dist.runs.tensorboard import EventFile


def finite(tree: Any) -> Any:
    """The tree without the leaves that are not finite: NaN never appears in a file."""
    if isinstance(tree, dict):
        pruned = {key: finite(value) for key, value in tree.items()}
        return {key: value for key, value in pruned.items() if value is not None and value != {}}
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def check_sinks(sinks: Collection[str]) -> None:
    """Raises ConfigError where one of them needs a library that is missing."""
    if "tensorboard" in sinks:
        tensorboard.check()


class MetricsWriter:
    """The records and pictures of a run, to metrics.jsonl and to the other sinks that are wanted, from `step` on.

    Nothing is written once `mine` says that the folder is another start's.
    """

    def __init__(
        self, run: Path, step: int, sinks: Collection[str] = (), mine: Callable[[], bool] = lambda: True
    ) -> None:
        self._lines = MetricsFile(run / "metrics.jsonl", step, mine)
        self._events = EventFile(run, step, mine) if "tensorboard" in sinks else None

    def write(self, kind: str, step: int, record: dict[str, Any]) -> None:
        record = finite(record)
        self._lines.write(kind, step, record)
        if self._events is not None:
            self._events.write(kind, step, record)

    def picture(self, step: int, path: Path) -> None:
        """A picture that was written as PNG file `path`."""
        if self._events is not None:
            self._events.picture(step, path.read_bytes())

    def close(self) -> None:
        self._lines.close()
        if self._events is not None:
            self._events.close()


class MetricsFile:
    """metrics.jsonl of a run folder, one object a line.

    Opened at `step`, it drops what an earlier start wrote beyond that step (the coming steps write it again, equal) and
    a last line that a kill cut short. Events stay. Lines for which there is no room wait for it.
    """

    def __init__(self, path: Path, step: int, mine: Callable[[], bool] = lambda: True) -> None:
        kept = [line for line in _whole_lines(path) if _stays(line, step)]
        files.write_text(path, "".join(f"{line}\n" for line in kept))
        self._file = AppendFile(path, mine)

    def write(self, kind: str, step: int, record: dict[str, Any]) -> None:
        line = json.dumps({"kind": kind, "step": step, **record}, allow_nan=False)
        self._file.add(f"{line}\n".encode())

    def close(self) -> None:
        self._file.close()


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
