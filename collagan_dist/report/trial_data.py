"""Trials of a sweep as the report reads them: the rows of trials.csv, and the evaluations in each trial's run folder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pydantic import Field

from collagan_dist import structured
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.report import formatting
from collagan_dist.report.evaluation import is_number, parse_evaluation
from collagan_dist.report.run_data import read_settings, section
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.metrics_log import read_metrics_log
from collagan_dist.runs.thinning import spread_evenly

Value = float | str | None
Curve = tuple[tuple[int, float], ...]
REPAIR_HINT = "Restore it, or remove it and run the same `collagan sweep` again, which writes it anew from the trials"
# All other columns are searched keys and metrics.
_COLUMNS = ("trial", "configuration", "status", "steps", "role", "seed", "samples", "restarts", "breaks", "reason")
_JSON_WORDS = {"True": "true", "False": "false", "None": "null"}
_EMPTY = ("", "nan", "none", "null")
_MAX_INTEGER = 10**15
# Points of a trial's curve beside those at rungs; a page may show hundreds of curves.
_MAX_CURVE_POINTS = 50
_MAX_NOTES = 20


@dataclass(frozen=True)
class TrialData:
    """One trial. `scores` are its metrics after `samples` samples; `curves` those of all its evaluations, (samples, value).

    `configuration` is the first trial of those that differ in their seed alone; `errors` are standard errors of scores that are means.
    """

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
    configuration: int | None = None
    errors: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Curve] | None = None
    undrawable: int = 0

    def at(self, metric: str, samples: int) -> float | None:
        """Return the metric after `samples` samples, None where no evaluation was made there."""
        found = [value for at, value in (self.curves or {}).get(metric, ()) if at == samples]
        return found[-1] if found else None


def read_trials(path: Path, spaces: Mapping[str, dict[str, Any]]) -> tuple[list[TrialData], tuple[str, ...]]:
    """Return the rows of trials.csv by number and the names of its metrics; nothing where the file is missing or empty.

    `spaces` are the searched keys of sweep.json. Numbers that cannot be drawn are left out.
    Raises DataError for a file that no sweep wrote.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not readable as CSV ({error}). {REPAIR_HINT}.") from error
    # A sweep that has just begun has no trials.csv.
    if not rows:
        return [], ()
    header = rows[0]
    if "trial" not in header or len(set(header)) < len(header):
        raise DataError(
            f'{path}, line 1: expected a header with a column "trial" and no name twice. {REPAIR_HINT}.'
        )  # fmt: skip
    metrics = tuple(name for name in header if name not in _COLUMNS and name not in spaces)
    trials: dict[int, TrialData] = {}
    for line, cells in enumerate(rows[1:], 2):
        if not cells:
            continue
        # strict=False, as the length is checked next, with an error that names the row.
        row = _CsvRow(path, line, dict(zip(header, cells, strict=False)))
        if len(cells) != len(header):
            row.refuse(f"{len(cells)} cells under {len(header)} names")
        trial = _parse_trial(row, spaces, metrics)
        if trial.number in trials:
            row.refuse(f"trial {trial.number} is listed twice")
        trials[trial.number] = trial
    return [trials[number] for number in sorted(trials)], metrics


@dataclass(frozen=True)
class _CsvRow:
    """A row of trials.csv with its place in the file, for errors."""

    path: Path
    line: int
    cells: Mapping[str, str]

    def refuse(self, why: str) -> NoReturn:
        raise DataError(f"{self.path}, row {self.line}: {why}. {REPAIR_HINT}.")

    def text(self, column: str) -> str:
        return self.cells.get(column, "").strip()

    def number(self, column: str) -> float | None:
        text = self.text(column)
        if text.lower() in _EMPTY:
            return None
        try:
            value = float(text)
        except ValueError:
            self.refuse(f'expected a number under "{column}", found {text!r}')
        return value if is_number(value) else None

    def integer(self, column: str) -> int | None:
        value = self.number(column)
        if value is not None and abs(value) > _MAX_INTEGER:
            self.refuse(f'expected a smaller number under "{column}", found {self.text(column)!r}')
        return None if value is None else int(value)


def _parse_trial(row: _CsvRow, spaces: Mapping[str, dict[str, Any]], metrics: tuple[str, ...]) -> TrialData:
    number = row.integer("trial")
    if number is None or number < 0:
        row.refuse(f'expected a number from 0 under "trial", found {row.cells["trial"]!r}')
    return TrialData(
        number=number,
        status=row.text("status"),
        # Without the column every trial counts as searched.
        role=row.text("role") or "search",
        values={name: _parse_value(row.text(name), space) for name, space in spaces.items()},
        scores={name: value for name in metrics if (value := row.number(name)) is not None},
        steps=row.integer("steps"),
        samples=row.integer("samples"),
        seed=row.integer("seed"),
        restarts=row.integer("restarts"),
        reason=row.text("reason"),
        configuration=row.integer("configuration"),
        undrawable=sum(_is_undrawable(row.text(name)) for name in (*spaces, *metrics)),
    )


def _is_undrawable(text: str) -> bool:
    try:
        return text.lower() not in _EMPTY and not is_number(float(text))
    except ValueError:
        return False


def _parse_value(text: str, space: Mapping[str, Any]) -> Value:
    """Return a number, or the text of a choice; None for an empty cell."""
    if is_choice(space):
        return choice_text(text) if text else None
    if text.lower() in _EMPTY:
        return None
    try:
        value = float(text)
    except ValueError:
        return text
    return value if is_number(value) else None


def choice_text(value: object) -> str:
    """Write a value of a choice in the one way that sweep.json and trials.csv share: true, 0.5, own, [1, 2]."""
    if isinstance(value, str):
        # csv writes Python's True; JSON reads true.
        try:
            return choice_text(json.loads(_JSON_WORDS.get(value, value)))
        except ValueError:
            return value
    if value is None:
        return "none"
    # Before int, as a bool is one.
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, (int, float)):
        return f"{value:.6g}"
    return json.dumps(value)


def format_value(value: Value) -> str:
    """Write a value of a searched key for people."""
    if value is None:
        return formatting.MISSING
    return formatting.format_number(value) if is_number(value) else str(value)


def is_choice(space: Mapping[str, Any]) -> bool:
    return space.get("kind") == "choice" or isinstance(space.get("values"), list)


def trial_folder(sweep: Path, number: int) -> Path:
    """Return the run folder of a trial."""
    return sweep / "trials" / f"t{number:03d}"


def add_curves(
    folder: Path, trials: Sequence[TrialData], metrics: Sequence[str], kept: Iterable[int] = ()
) -> tuple[tuple[TrialData, ...], tuple[str, ...]]:
    """Return the trials with the curves of their run folders, and notes on folders that cannot be read.

    Long curves are thinned out, but not at the numbers of samples in `kept`.
    """
    read, notes, kept = [], list[str](), frozenset(kept)
    for trial in trials:
        try:
            curves, said = _read_curves(trial_folder(folder, trial.number), metrics, kept)
            notes += [f"The curve of trial {trial.number}: {note}" for note in said]
        # One damaged folder of hundreds must not keep the page from being written.
        except (DataError, ConfigError, OSError, ValueError) as error:
            curves = {}
            notes.append(f"The curve of trial {trial.number} is left out: {error}")
        read.append(replace(trial, curves=curves))
    if len(notes) > _MAX_NOTES:
        notes[_MAX_NOTES:] = [f"{len(notes) - _MAX_NOTES} more notes on curves of trials are not shown."]
    return tuple(read), tuple(notes)


def _read_curves(run: Path, metrics: Sequence[str], kept: frozenset[int]) -> tuple[dict[str, Curve], list[str]]:
    """Return each metric by samples seen: steps times the batch of this run; and notes on its log."""
    log = read_metrics_log(run)
    if not log.evals:
        return {}, log.notes
    # Trials may search the batch, so samples and not steps compare them.
    batch = _read_batch(run)
    items = [parse_evaluation(row) for row in log.evals]
    # One curve is of one split and hole; a run may log several.
    items = [item for item in items if item.subject == items[0].subject]
    points: dict[str, list[tuple[int, float]]] = {}
    for item in items:
        for name in metrics:
            # A sweep writes "dice" for the average over classes.
            value = item.values.get(name, item.values.get(f"{name}/mean"))
            if value is not None and item.step is not None:
                points.setdefault(name, []).append((item.step * batch, value))
    return {name: _thin_out(curve, kept) for name, curve in points.items()}, log.notes


class _Batch(structured.Record):
    batch: Annotated[int, Field(ge=1, le=_MAX_INTEGER)]


def _read_batch(run: Path) -> int:
    """Return the batch of a trial. Raises DataError, ConfigError, OSError or ValueError where its folder does not say."""
    paths = RunPaths(run)
    # Of thousands of trials: a configuration takes ten times as long to read.
    found = structured.find(paths.trial, _Batch)
    if found is not None:
        return found.batch
    batch: Any = section(read_settings(paths.config), "schedule").get("batch")
    if not is_number(batch) or batch < 1:
        raise ValueError(f"{paths.config} names no schedule.batch")
    return int(batch)


def _thin_out(curve: list[tuple[int, float]], kept: frozenset[int]) -> Curve:
    chosen = set(spread_evenly(len(curve), _MAX_CURVE_POINTS))
    return tuple(point for index, point in enumerate(curve) if index in chosen or point[0] in kept)
