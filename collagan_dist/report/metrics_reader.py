"""Reading metrics.jsonl: what a run said about itself, in the order of its steps."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collagan_dist.errors import DataError

Row = dict[str, Any]


@dataclass
class MetricsLog:
    """Train and eval lines by step, events as they came. `notes` says what could not be used."""

    train: list[Row] = field(default_factory=list)
    evals: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_log(path: Path) -> MetricsLog:
    """The log at `path`; an empty one when the file is missing."""
    log = MetricsLog()
    if not path.is_file():
        return log
    unknown = 0
    for number, row in _rows(path, log.notes):
        kind = row.get("kind")
        if kind == "train":
            _add_train(log, _with_step(row, path, number))
        elif kind == "eval":
            _add_eval(log, _with_step(row, path, number))
        elif kind == "event":
            log.events.append(row)
        else:
            unknown += 1
    if unknown:
        log.notes.append(
            f"{unknown} line(s) of metrics.jsonl are of a kind this report does not know and were left out."
        )
    return log


def _rows(path: Path, notes: list[str]) -> list[tuple[int, Row]]:
    """The numbered objects of the file. Only the last line may be broken: a kill can cut it short."""
    lines = [(number, line) for number, line in enumerate(path.read_bytes().split(b"\n"), 1) if line.strip()]
    rows: list[tuple[int, Row]] = []
    not_finite = 0
    for number, line in lines:
        try:
            row = json.loads(line, parse_constant=lambda _: None)
            if not isinstance(row, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError) as error:
            if number == lines[-1][0]:
                notes.append(
                    f"Line {number}, the last of metrics.jsonl, is cut short (the writer was killed); left out."
                )
                break
            raise DataError(
                f"{path}, line {number}: this is not a JSON object ({error}). "
                f"Only the last line may be cut short. Remove line {number} or restore the file, then run this again."
            ) from error
        not_finite += b"NaN" in line or b"Infinity" in line
        rows.append((number, row))
    if not_finite:
        notes.append(f"{not_finite} line(s) of metrics.jsonl hold NaN or infinite values; those values were left out.")
    return rows


def _with_step(row: Row, path: Path, number: int) -> Row:
    step = row.get("step")
    if isinstance(step, bool) or not isinstance(step, int):
        raise DataError(
            f'{path}, line {number}: a "{row["kind"]}" line needs a whole number as "step", found {step!r}. '
            f"Mend or remove line {number}, then run this again."
        )
    return row


def _add_train(log: MetricsLog, row: Row) -> None:
    """Append, or rewind first: a run that resumed at an earlier step gave up what it had logged after it."""
    step = row["step"]
    if log.train and log.train[-1]["step"] >= step:
        log.train = [old for old in log.train if old["step"] < step]
        # An evaluation may be logged before the train line of its own step, so that one stays until it is replaced.
        log.evals = [old for old in log.evals if old["step"] <= step]
    log.train.append(row)


def _add_eval(log: MetricsLog, row: Row) -> None:
    """Append in place of an earlier line about the same step, split, hole and blend."""

    def subject(line: Row) -> list[Any]:
        return [line.get(key) for key in ("step", "split", "hole", "blend")]

    log.evals = [old for old in log.evals if subject(old) != subject(row)]
    log.evals.append(row)
    log.evals.sort(key=lambda line: line["step"])
