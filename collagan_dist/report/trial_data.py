"""Trials of a sweep: the rows of trials.csv, and from their run folders the evaluations on the way."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import yaml

from collagan_dist.errors import DataError
from collagan_dist.report.evaluation import is_number, parse_evaluation
from collagan_dist.report.run_data import section
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.metrics_log import read_metrics_log

Value = float | str | None
Curve = tuple[tuple[int, float], ...]
MEND = "Restore it, or remove it and run the same `collagan sweep` again, which writes it anew from the trials"
_COLUMNS = ("trial", "status", "steps", "role", "seed", "samples", "restarts", "reason")
_PYTHON = {"True": "true", "False": "false", "None": "null"}
_NOTHING = ("", "nan", "none", "null")


@dataclass(frozen=True)
class TrialData:
    """`scores` are the metrics at `samples` samples; `curves` those of its evaluations on the way, (samples, value)."""

    number: int
    status: str
    role: str
    values: Mapping[str, Value]
    scores: Mapping[str, float]
    steps: int | None = None
    samples: int | None = None
    seed: int | None = None
    restarts: int | None = None
    reason: str = ""
    curves: Mapping[str, Curve] | None = None

    def at(self, metric: str, samples: int) -> float | None:
        """The metric after `samples` samples, where an evaluation was made there."""
        found = [value for place, value in (self.curves or {}).get(metric, ()) if place == samples]
        return found[-1] if found else None


def read_trials(path: Path, spaces: Mapping[str, dict[str, Any]]) -> tuple[list[TrialData], tuple[str, ...]]:
    """The rows of trials.csv and the names of its metrics; none where the file is missing or empty."""
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not readable as CSV ({error}). {MEND}.") from error
    if not rows:
        return [], ()
    header = rows[0]
    if "trial" not in header or len(set(header)) < len(header):
        raise DataError(f'{path}, line 1: a header with a column "trial", each name once, is expected. {MEND}.')
    metrics = tuple(name for name in header if name not in _COLUMNS and name not in spaces)
    trials: dict[int, TrialData] = {}
    for line, row in enumerate(rows[1:], 2):
        if not row:
            continue
        if len(row) != len(header):
            _refuse(path, line, f"{len(row)} cells under {len(header)} names")
        trial = _trial(path, line, dict(zip(header, row, strict=True)), spaces, metrics)
        if trial.number in trials:
            _refuse(path, line, f"trial {trial.number} stands there twice")
        trials[trial.number] = trial
    return [trials[number] for number in sorted(trials)], metrics


def _refuse(path: Path, line: int, why: str) -> NoReturn:
    raise DataError(f"{path}, row {line}: {why}. {MEND}.")


def _trial(
    path: Path, line: int, row: Mapping[str, str], spaces: Mapping[str, dict[str, Any]], metrics: tuple[str, ...]
) -> TrialData:
    def number(column: str) -> float | None:
        text = row.get(column, "").strip()
        if text.lower() in _NOTHING:
            return None
        try:
            value = float(text)
        except ValueError:
            _refuse(path, line, f'a number is expected under "{column}", found {text!r}')
        return value if math.isfinite(value) else None

    def whole(column: str) -> int | None:
        value = number(column)
        return None if value is None else int(value)

    trial = whole("trial")
    if trial is None or trial < 0:
        _refuse(path, line, f'a number from 0 is expected under "trial", found {row["trial"]!r}')
    scores = {name: value for name in metrics if (value := number(name)) is not None}
    return TrialData(
        number=trial,
        status=row.get("status", "").strip(),
        role=row.get("role", "").strip() or "search",
        values={name: _value(row.get(name, ""), space) for name, space in spaces.items()},
        scores=scores,
        steps=whole("steps"),
        samples=whole("samples"),
        seed=whole("seed"),
        restarts=whole("restarts"),
        reason=row.get("reason", "").strip(),
    )


def _value(text: str, space: Mapping[str, Any]) -> Value:
    """A number, or a choice in words; None where the cell is empty. What is no number stays as it stands there."""
    text = text.strip()
    if is_choice(space):
        return word_of(text) if text else None
    if text.lower() in _NOTHING:
        return None
    try:
        value = float(text)
    except ValueError:
        return text
    return value if math.isfinite(value) else None


def word_of(value: object) -> str:
    """A value of a choice in the one way that JSON and a cell of trials.csv share: true, 0.5, own, [1, 2]."""
    if isinstance(value, str):
        try:
            return word_of(json.loads(_PYTHON.get(value, value)))
        except ValueError:
            return value
    if value is None:
        return "none"
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, (int, float)):
        return f"{value:.6g}"
    return json.dumps(value)


def is_choice(space: Mapping[str, Any]) -> bool:
    return space.get("kind") == "choice" or isinstance(space.get("values"), list)


def with_curves(
    folder: Path, trials: Sequence[TrialData], names: Sequence[str]
) -> tuple[tuple[TrialData, ...], tuple[str, ...]]:
    """The trials with what their run folders say of the way there. One that cannot be read is a note, not the end."""
    read, notes = [], []
    for trial in trials:
        place = folder / "trials" / f"t{trial.number:03d}"
        try:
            curves = _curves(place, names)
        except (DataError, OSError, ValueError, yaml.YAMLError) as error:
            curves = {}
            notes.append(f"The curve of trial {trial.number} is left out: {error}")
        read.append(replace(trial, curves=curves))
    return tuple(read), tuple(notes)


def _curves(place: Path, names: Sequence[str]) -> dict[str, Curve]:
    """Each metric by samples seen, which are steps times the batch of this run's configuration."""
    rows = read_metrics_log(place).evals
    if not rows:
        return {}
    config = yaml.safe_load(RunPaths(place).config.read_text(encoding="utf-8"))
    batch: Any = section(config if isinstance(config, dict) else {}, "schedule").get("batch")
    if not is_number(batch):
        raise ValueError(f"{RunPaths(place).config} names no schedule.batch")
    items = [parse_evaluation(row) for row in rows]
    items = [item for item in items if item.subject == items[0].subject]
    points: dict[str, list[tuple[int, float]]] = {}
    for item in items:
        for name in names:
            value = score(item.values, name)
            if value is not None and item.step is not None:
                points.setdefault(name, []).append((item.step * int(batch), value))
    return {name: tuple(curve) for name, curve in points.items()}


def score(values: Mapping[str, float], name: str) -> float | None:
    """A metric by the name that a sweep gives it: "dice" stands for "dice/mean"."""
    return values.get(name, values.get(f"{name}/mean"))
