"""metrics.jsonl of a run folder, its writer and its readers: one JSON object a line, of kind train, eval or event."""

from __future__ import annotations

import json
import logging
import math
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, BinaryIO, Protocol

from collagan_dist import files
from collagan_dist.errors import DataError
from collagan_dist.runs.append_file import AppendFile
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.mlflow_sink import MlflowSink
from collagan_dist.runs.tensorboard import EventFile
from collagan_dist.runs.thinning import (
    MAX_CURVES,
    MAX_LEFT_OUT,
    MAX_NUMBER,
    CurveCollector,
    EvenlySpread,
    Row,
    TrainCurves,
    is_number,
)
from collagan_dist.runs.wandb_sink import WandbSink

logger = logging.getLogger(__name__)


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
SINKS: dict[str, type[Sink]] = {"tensorboard": EventFile, "wandb": WandbSink, "mlflow": MlflowSink}

_TAIL_BYTES = 1 << 16  # at the end of the file, which hold many train lines
_CHUNK_BYTES = 1 << 20
# An evaluation has about 5 kB. A file without newlines must not be taken for one line of gigabytes.
MAX_LINE_BYTES = 1 << 18
_MAX_STEP = 10**15
_MAX_DEPTH = 16
# Of one log: what a page can show. A run that skips a batch every step has thousands of events.
MAX_EVALS, MAX_SUBJECTS, MAX_EVENTS, MAX_MARKS = 300, 8, 200, 60
_MAX_EVENT_NAMES = 100
# Fields of a train line that say when, not how well.
_NOT_CURVES = ("kind", "epoch", "samples", "time")
# In the lines of steps with all losses, of every model: GFC's last discriminator has this name, the first another.
_ADVERSARIAL = re.compile("loss/[^/]+/adv")
# Events after which the curves may jump.
_MARKED = ("resume", "rollback")


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
        damaged = 0
        # Renamed into place: a kill in between leaves the former file. Line by line, as it may have gigabytes.
        with files.atomic_write(path) as file:
            for line in _complete_lines(path):
                row = parse_line(line)
                damaged += row is None
                # The coming steps write their lines again. Events stay: they tell what happened, again or not.
                if row is not None and (row["kind"] == "event" or row.get("step", 0) <= step):
                    file.write(line)
        if damaged:
            logger.warning("warning: %s: %d damaged line(s) left out", path, damaged)
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


def _complete_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines that end with a newline, a damaged one in place of each of over MAX_LINE_BYTES; none without the file."""
    try:
        file = files.open_regular(path)
    except FileNotFoundError:
        return
    with file:
        begins = True  # whether the next piece is the beginning of a line
        while piece := file.readline(MAX_LINE_BYTES):
            ends = piece.endswith(b"\n")
            # Behind the last newline there is nothing, or a line that is still being written.
            if ends and piece.strip():
                yield piece if begins else b"too long\n"
            begins = ends


# Built once: json.loads would build one for each line. Other programs write NaN, which JSON does not have.
_decode = json.JSONDecoder(parse_constant=lambda _: math.nan).decode


def parse_line(line: bytes) -> Row | None:
    """Return the object of a line, of whatever kind; None where the line is damaged."""
    try:
        row = _decode(line.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("kind"), str):
        return None
    # An event tells what happened, with or without a step.
    if row["kind"] == "event" or (row["kind"] not in ("train", "eval") and "step" not in row):
        return row
    step = row.get("step")
    # type(), as bool is a subclass of int.
    return row if type(step) is int and 0 <= step <= _MAX_STEP else None


def read_rows(run: Path) -> Iterator[Row]:
    """Yield all lines of a run in the order of writing; none without the file. Damaged ones are skipped."""
    for line in _complete_lines(RunPaths(run).metrics_log):
        if (row := parse_line(line)) is not None:
            yield row


def count_damaged(run: Path) -> int:
    """Return how many whole lines of a run's log are damaged. Each start removes those that it finds."""
    return sum(parse_line(line) is None for line in _complete_lines(RunPaths(run).metrics_log))


def read_eval_lines(run: Path) -> Iterator[Row]:
    """Yield the eval lines of a run in the order of writing. Damaged lines are skipped."""
    for line in _complete_lines(RunPaths(run).metrics_log):
        # A sweep reads the logs of hundreds of trials: most lines need not be parsed.
        if b'"eval"' in line and (row := parse_line(line)) is not None and row["kind"] == "eval":
            yield row


def last_train_step(run: Path) -> int:
    """Return the step of the newest train line, 0 without one. Reads only the end of the file."""
    try:
        with files.open_regular(RunPaths(run).metrics_log) as file:
            # Called every few seconds for each running trial, while the file grows to megabytes.
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            rows = map(parse_line, file.read().split(b"\n"))
    except OSError:
        return 0
    return max((row["step"] for row in rows if row is not None and row["kind"] == "train"), default=0)


@dataclass
class MetricsLog:
    """A log as pages show it: thinned out while it is read, so that its size is bounded whatever the file's is.

    `evals` are at most MAX_EVALS lines of each split, hole and blend, by step; `events` the newest MAX_EVENTS, with
    `event_counts` of all; `marks` are steps of resumes and rollbacks. `notes` says what could not be used.
    """

    train: TrainCurves = field(default_factory=lambda: TrainCurves(0, 0, {}, {}))
    evals: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    event_counts: dict[str, int] = field(default_factory=dict)
    marks: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_metrics_log(run: Path) -> MetricsLog:
    """Read all lines of a run; an empty log without the file. Raises DataError for a file that cannot be read.

    What cannot be used becomes a note: damaged lines, unknown kinds, numbers that cannot be drawn.
    """
    path = RunPaths(run).metrics_log
    if not path.is_file():
        return MetricsLog()
    reader = _LogReader()
    try:
        with files.open_regular(path) as file:
            for line in _lines_backward(file):
                reader.add(line)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Restore it, or remove it.") from error
    return reader.finish()


def median_rate(run: Path) -> float | None:
    """Return the median of a run's logged rates, in images per second; None before the first. Raises DataError."""
    rates = read_metrics_log(run).train.samples.get("images_per_s", ())
    # The first line holds what happens once: libraries that choose their kernels, readers that fill their queues.
    return median(rates[1:] or rates) if rates else None


def full_rates_of_newest_start(run: Path) -> list[float]:
    """Return the rates of the newest start's lines whose steps had all losses, in images per second and in their order.

    Without the first, which holds what happens once, where there are more. One that began before the adversarial losses never counts.
    """
    rates: list[float] = []
    is_mixed = False  # whether the first of them has steps without adversarial losses
    without: int | None = None  # the step of the newest line without adversarial losses
    for row in read_rows(run):
        # A rollback trains on with the same ranks; before the others there may have been other ones.
        if row["kind"] == "event" and row.get("event") in ("start", "resume"):
            without, rates = None, []
        elif row["kind"] == "train" and is_number(rate := row.get("images_per_s")) and rate > 0:
            if any(_ADVERSARIAL.fullmatch(name) for name in row):
                is_mixed = is_mixed if rates else without is not None and row["step"] - without > 1
                rates.append(float(rate))
            else:
                without = row["step"]
    return rates if len(rates) == 1 and not is_mixed else rates[1:]


def drawable(tree: Any, depth: int) -> tuple[Any, int]:
    """Return plain data with None in place of numbers that cannot be drawn, and their count. Raises ValueError for deep data."""
    if not depth:
        raise ValueError("nested too deeply")
    if isinstance(tree, dict | list):
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        found = {key: drawable(value, depth - 1) for key, value in pairs}
        clean = {key: value for key, (value, _) in found.items()}
        return (clean if isinstance(tree, dict) else list(clean.values())), sum(count for _, count in found.values())
    wrong = isinstance(tree, int | float) and not isinstance(tree, bool) and not is_number(tree)
    return (None if wrong else tree), int(wrong)


def undrawable_note(name: str, count: int) -> list[str]:
    """Return the note on the numbers of a file that `drawable` has left out, if there are any."""
    text = f"are not finite or beyond ±{MAX_NUMBER:g}; they were left out"
    return [f"{count} number(s) of {name} {text}."] if count else []


def _lines_backward(file: BinaryIO) -> Iterator[bytes]:
    """Yield all pieces between newlines, the last first. Of one of over MAX_LINE_BYTES only some bytes more are kept."""
    position, carry = file.seek(0, 2), b""
    while position > 0:
        size = min(_CHUNK_BYTES, position)
        position -= size
        file.seek(position)
        carry, *lines = (file.read(size) + carry).split(b"\n")
        yield from reversed(lines)
        carry = carry[: MAX_LINE_BYTES + 1]
    yield carry


class _LogReader:
    """Takes the pieces of a log from the last to the first, so it is known of each whether a later start gave it up."""

    def __init__(self) -> None:
        self._train = CurveCollector(_NOT_CURVES)
        # A run that resumed at an earlier step gave up what it had logged after it: all that is not below this one.
        self._oldest_step: float = math.inf
        self._evals: dict[str, EvenlySpread] = {}
        self._seen_evals: set[str] = set()
        self._events: list[Row] = []
        self._event_counts: dict[str, int] = {}
        self._marks = EvenlySpread(MAX_MARKS)
        self._pieces = self._damaged = self._unknown = self._undrawable = 0
        self._left_out_evals = self._left_out_events = 0
        # Of the first damaged lines, counted from the end.
        self._places: deque[int] = deque(maxlen=5)
        self._cut_short = False

    def add(self, line: bytes) -> None:
        self._pieces += 1
        if not line or line.isspace():
            return
        row = parse_line(line) if len(line) <= MAX_LINE_BYTES else None
        # A kill can cut short what stands behind the last newline: that is no damage.
        if row is None and self._pieces == 1:
            self._cut_short = True
            return
        if row is None or not self._use(row, len(line)):
            self._damaged += 1
            self._places.append(self._pieces)

    def _use(self, row: Row, size: int) -> bool:
        """Take a row of `size` bytes; return False for one that is nested too deeply."""
        match row["kind"]:
            case "train":
                if row["step"] < self._oldest_step:
                    self._oldest_step = row["step"]
                    self._train.add(row, size)
            case "eval" | "event" as kind:
                try:
                    clean, undrawable = drawable(row, _MAX_DEPTH)
                except ValueError:
                    return False
                self._undrawable += undrawable
                (self._add_eval if kind == "eval" else self._add_event)(clean)
            case _:  # of a newer program, which may add kinds
                self._unknown += 1
        return True

    def _add_eval(self, row: Row) -> None:
        # An evaluation may be logged before the train line of its own step, so that one stays until it is replaced.
        if row["step"] > self._oldest_step:
            return
        subject = repr([row.get(key) for key in ("split", "hole", "blend")])
        key = f"{row['step']} {subject}"
        # Of two of one step the later counts, which is met first.
        if key in self._seen_evals:
            return
        self._seen_evals.add(key)
        if subject not in self._evals:
            if len(self._evals) == MAX_SUBJECTS:
                self._left_out_evals += 1
                return
            self._evals[subject] = EvenlySpread(MAX_EVALS)
        self._evals[subject].add((-self._pieces, row))

    def _add_event(self, row: Row) -> None:
        name = row.get("event", "event")
        if len(self._events) < MAX_EVENTS:
            self._events.append(row)
        if name in _MARKED and type(row.get("step")) is int and 0 <= row["step"] <= _MAX_STEP:
            self._marks.add(row["step"])
        name = name if isinstance(name, str) else json.dumps(name)
        if name in self._event_counts or len(self._event_counts) < _MAX_EVENT_NAMES:
            # Moved to the end, so that the name that the log has first is last.
            self._event_counts[name] = self._event_counts.pop(name, 0) + 1
        else:
            self._left_out_events += 1

    def finish(self) -> MetricsLog:
        train = self._train.finish()
        placed = [item for evals in self._evals.values() for item in evals.items()]
        placed.sort(key=lambda item: (item[1]["step"], item[0]))
        return MetricsLog(
            train,
            [row for _, row in placed],
            self._events[::-1],
            dict(reversed(self._event_counts.items())),
            self._marks.items()[::-1],
            list(self._notes()),
        )

    def _notes(self) -> Iterator[str]:
        if self._cut_short:
            where = f"Line {self._pieces}, the last of metrics.jsonl,"
            yield f"{where} is cut short (the writer was killed); left out."
        if self._damaged:
            numbers = ", ".join(str(self._pieces - place + 1) for place in reversed(self._places))
            more = ", …" if self._damaged > len(self._places) else ""
            text = "are damaged (no JSON object with a kind, and a step where one belongs) and were left out"
            yield f"{self._damaged} line(s) of metrics.jsonl {text}: {numbers}{more}."
        yield from undrawable_note("metrics.jsonl", self._undrawable + self._train.undrawable)
        if self._unknown:
            yield f"{self._unknown} line(s) of metrics.jsonl are of an unknown kind and were left out."
        if self._train.left_out:
            names = ", ".join(name[:40] for name in sorted(self._train.left_out)[:3])
            count = len(self._train.left_out)
            text = f"{count}{' or more' if count == MAX_LEFT_OUT else ''} name(s) of numbers"
            yield f"{text} in metrics.jsonl are beyond {MAX_CURVES} and were left out: {names}, …"
        if self._left_out_evals:
            text = f"are of more than {MAX_SUBJECTS} splits, holes and blends and were left out"
            yield f"{self._left_out_evals} evaluation(s) of metrics.jsonl {text}."
        if self._left_out_events:
            yield f"{self._left_out_events} event(s) of metrics.jsonl have other names and were not counted by name."
