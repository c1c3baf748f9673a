"""metrics.jsonl of a run folder, its writer and its readers: one JSON object a line, of kind train, eval or event."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from collagan_dist import files
from collagan_dist.errors import DataError
from collagan_dist.runs.append_file import AppendFile
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.tensorboard import EventFile

Row = dict[str, Any]


class Sink(Protocol):
    """Where metrics go beside metrics.jsonl. Opened at a start's first step, it replaces what earlier starts wrote after it."""

    def __init__(self, run: Path, step: int, is_current: Callable[[], bool] = ...) -> None: ...

    @staticmethod
    def check_installed() -> None:
        """Raise ConfigError if what the sink needs is missing."""

    def write(self, kind: str, step: int, record: Row) -> None:
        """Write a line of metrics.jsonl, of any kind; its numbers are finite."""

    def add_grid(self, step: int, png: bytes) -> None: ...

    def close(self) -> None: ...


# By name in log.sinks. metrics.jsonl is always written. Another sink is a class and an entry here.
SINKS: dict[str, type[Sink]] = {"tensorboard": EventFile}

_TAIL_BYTES = 1 << 16  # at the end of the file, which hold many train lines


def without_nonfinite(tree: Any) -> Any:
    """Return the tree without the leaves that are not finite: JSON has no NaN."""
    if isinstance(tree, dict):
        pruned = {key: without_nonfinite(value) for key, value in tree.items()}
        return {key: value for key, value in pruned.items() if value is not None and value != {}}
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def check_sinks(names: Collection[str]) -> None:
    """Raise ConfigError if what a configured sink needs is not installed."""
    for name, sink in SINKS.items():
        if name in names:
            sink.check_installed()


class MetricsWriter:
    """Writes the lines and grids of one start, from `step` on, to metrics.jsonl and the other `sinks`.

    Nothing is written once `is_current` says that another start owns the folder. Lines without room on the disk wait.
    """

    def __init__(
        self, run: Path, step: int, sinks: Collection[str] = (), is_current: Callable[[], bool] = lambda: True
    ) -> None:
        path = RunPaths(run).metrics_log
        # The coming steps write their lines again. Events stay: they tell what happened, again or not.
        kept = [line for line in _complete_lines(path) if _precedes(line, step)]
        # Renamed into place: a kill in between leaves the former file.
        files.write_bytes(path, b"".join(line + b"\n" for line in kept))
        self._lines = AppendFile(path, is_current)
        self._sinks = [sink(run, step, is_current) for name, sink in SINKS.items() if name in sinks]

    def write(self, kind: str, step: int, record: Row) -> None:
        record = without_nonfinite(record)
        line = json.dumps({"kind": kind, "step": step, **record}, allow_nan=False)
        self._lines.append(f"{line}\n".encode())
        for sink in self._sinks:
            sink.write(kind, step, record)

    def add_grid(self, step: int, path: Path) -> None:
        """Show a picture grid, a PNG file in the run folder, in the sinks that have pictures."""
        for sink in self._sinks:
            sink.add_grid(step, path.read_bytes())

    def close(self) -> None:
        self._lines.close()
        for sink in self._sinks:
            sink.close()


def _precedes(line: bytes, step: int) -> bool:
    row = _parse(line)
    return row.get("kind") == "event" or ("kind" in row and row.get("step", 0) <= step)


def _complete_lines(path: Path) -> list[bytes]:
    """Return the lines that end with a newline; [] without the file."""
    try:
        # Behind the last newline there is nothing, or a line that is still being written.
        return [line for line in path.read_bytes().split(b"\n")[:-1] if line]
    except FileNotFoundError:
        return []


def _parse(line: bytes) -> Row:
    """Return the object of a line; an empty one where the line is damaged."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def read_eval_lines(run: Path) -> Iterator[Row]:
    """Yield the eval lines of a run in the order of writing. Damaged lines are skipped."""
    for line in _complete_lines(RunPaths(run).metrics_log):
        # A sweep reads the logs of hundreds of trials: most lines need not be parsed.
        if b'"eval"' in line and (row := _parse(line)).get("kind") == "eval":
            yield row


def last_train_step(run: Path) -> int:
    """Return the step of the newest train line, 0 without one. Reads only the end of the file."""
    try:
        with RunPaths(run).metrics_log.open("rb") as file:
            # Called every few seconds for each running trial, while the file grows to megabytes.
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return 0
    return max((int(row["step"]) for row in map(_parse, lines) if row.get("kind") == "train"), default=0)


@dataclass
class MetricsLog:
    """Train and eval lines by step, events as they came. `notes` says what could not be used."""

    train: list[Row] = field(default_factory=list)
    evals: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_train(self, row: Row) -> None:
        step = row["step"]
        # A run that resumed at an earlier step gave up what it had logged after it.
        if self.train and self.train[-1]["step"] >= step:
            self.train = [old for old in self.train if old["step"] < step]
            # An evaluation may be logged before the train line of its own step, so that one stays until it is replaced.
            self.evals = [old for old in self.evals if old["step"] <= step]
        self.train.append(row)

    def add_eval(self, row: Row) -> None:
        """Add an eval line in place of an earlier one of the same step, split, hole and blend."""
        self.evals = [old for old in self.evals if _eval_key(old) != _eval_key(row)]
        self.evals.append(row)
        self.evals.sort(key=lambda line: line["step"])


def _eval_key(row: Row) -> list[Any]:
    return [row.get(key) for key in ("step", "split", "hole", "blend")]


def read_metrics_log(run: Path) -> MetricsLog:
    """Read all lines of a run strictly; an empty log without the file. Raises DataError for a damaged line.

    Only the last line may be damaged: a kill can cut it short.
    """
    log, path = MetricsLog(), RunPaths(run).metrics_log
    if not path.is_file():
        return log
    unknown = 0
    for number, row in _numbered_rows(path, log.notes):
        match row.get("kind"):
            case "train" | "eval" as kind:
                _check_step(row, path, number)
                (log.add_train if kind == "train" else log.add_eval)(row)
            case "event":
                log.events.append(row)
            case _:  # of a newer program, which may add kinds
                unknown += 1
    if unknown:
        log.notes.append(f"{unknown} line(s) of metrics.jsonl are of an unknown kind and were left out.")
    return log


def _numbered_rows(path: Path, notes: list[str]) -> list[tuple[int, Row]]:
    lines = [(number, line) for number, line in enumerate(path.read_bytes().split(b"\n"), 1) if line.strip()]
    # Numbered from 1 and with blank lines counted, as an editor shows them.
    rows: list[tuple[int, Row]] = []
    not_finite = 0
    for number, line in lines:
        try:
            # Other programs write NaN, which JSON does not have.
            row = json.loads(line, parse_constant=lambda _: None)
            if not isinstance(row, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError) as error:
            if number == lines[-1][0]:
                where = f"Line {number}, the last of metrics.jsonl,"
                notes.append(f"{where} is cut short (the writer was killed); left out.")
                break
            hint = (
                f"Only the last line may be cut short. Remove line {number} or restore the file, then run this again."
            )
            raise DataError(f"{path}, line {number}: this is not a JSON object ({error}). {hint}") from error
        not_finite += b"NaN" in line or b"Infinity" in line
        rows.append((number, row))
    if not_finite:
        notes.append(f"{not_finite} line(s) of metrics.jsonl hold NaN or infinite values; those values were left out.")
    return rows


def _check_step(row: Row, path: Path, number: int) -> None:
    step = row.get("step")
    # bool is a subclass of int.
    if isinstance(step, bool) or not isinstance(step, int):
        problem = f'a "{row["kind"]}" line needs an integer as "step", found {step!r}'
        raise DataError(f"{path}, line {number}: {problem}. Mend or remove line {number}, then run this again.")
