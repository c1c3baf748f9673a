"""Audits tables: what a reproduction's have of an evaluation must be the evaluation's, and a sweep's row must be its trial's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from collagan_dist.audit.finding import AuditFinding, Verdict
from collagan_dist.errors import DataError
from collagan_dist.report import paper_tables, trial_data
from collagan_dist.reproduce import paper
from collagan_dist.reproduce.results import lookup, read_evaluation
from collagan_dist.runs.thinning import is_number
from collagan_dist.sweep import sweep_table
from collagan_dist.sweep.space_spec import METRICS

_TOLERANCE = 1e-9  # of the same double, written as JSON
_SHOWN = 3


def audit_cells(out: Path, run: Path, evaluation: Path) -> AuditFinding | None:
    """Compare the cells of OUT/table1.json to table3.json and controls.json that an evaluation gives; None where it gives none."""
    subject = f"{run.name}: tables"
    try:
        metrics, _ = read_evaluation(evaluation)
        found = list(_cells(out, re.sub(r"-seed\d+$", "", run.name), metrics))
    except DataError as error:
        return AuditFinding(subject, "damaged", wrong=(str(error),))
    if not found:
        return None
    wrong = [text for where, cell, value in found if (text := _wrong(where, cell, value, evaluation))]
    verdict: Verdict = "differs" if wrong else "equal"
    return AuditFinding(subject, verdict, evaluation.stem, f"{len(found)} cells", wrong=tuple(wrong[:_SHOWN]))


def audit_rows(out: Path, runs: Sequence[Path]) -> list[AuditFinding]:
    """Compare the rows of OUT/trials.csv of some trials with the trials' folders: values and metrics.

    Nothing is said of a trial in training; there are none where OUT is no sweep.
    """
    path = out / "trials.csv"
    if not path.is_file():
        return []
    try:
        table = [row for row in sweep_table.table(out) if Path(row["path"]) in runs and row["status"] != "running"]
        rows, _ = trial_data.read_trials(path, {key: {} for row in table for key in _values(row)})
    except DataError as error:
        return [AuditFinding(path.name, "damaged", wrong=(str(error),))]
    shown = {row.number: row for row in rows}
    return [_row(path, shown.get(own["trial"]), own) for own in table]


def _row(path: Path, row: trial_data.TrialData | None, own: Mapping[str, Any]) -> AuditFinding:
    """Compare the row of one trial with `own`, which its folder says."""
    subject = f"{Path(own['path']).name}: row of {path.name}"
    if row is None or (row.samples or 0) < own["samples"]:
        return AuditFinding(subject, "not comparable", notes=("it is older than the trial: the sweep writes it anew",))
    cells: list[tuple[str, Any, Any]] = [
        ("samples", row.samples, own["samples"]),
        *((name, row.scores.get(name), own.get(name)) for name in METRICS),
        *((name, row.values[name], value) for name, value in _values(own).items()),
    ]
    wrong = [
        f"{path}: trial {own['trial']}, {name}: {cell}, by its folder {value}"
        for name, cell, value in cells
        if not _same(cell, value)
    ]
    verdict: Verdict = "differs" if wrong else "equal"
    return AuditFinding(subject, verdict, path.name, f"{len(cells)} cells", wrong=tuple(wrong[:_SHOWN]))


def _values(own: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("config/"): value for name, value in own.items() if name.startswith("config/")}


def _same(shown: Any, value: Any) -> bool:
    """Whether a cell shows a value: numbers are written so that they can be read back."""
    if is_number(shown) and is_number(value):
        return bool(shown == value)
    return trial_data.choice_text(shown) == trial_data.choice_text(value)


def _cells(out: Path, model: str, metrics: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], float]]:
    """Yield (place of a cell, the cell, the evaluation's number)."""
    tables: list[tuple[int, str, Mapping[str, Any]]] = [
        (n, f"table{n}.json", paper_tables.read_table(out, n))
        for n in paper.TABLES
        if (out / f"table{n}.json").is_file()
    ]
    tables += [(n, "controls.json", table) for n, table in paper_tables.control_tables(paper_tables.read_controls(out))]
    for number, file, table in tables:
        words = table.get("parts") == paper.parts("words")
        for column, cell in table["cells"].get(model, {}).items():
            for kind in paper.kinds(number):
                score = paper.score(number, column, kind, "words" if words else "numbers")
                here = (score.hole, score.blended) == (metrics.get("hole"), metrics.get("blend") == "poisson")
                if here and (value := lookup(metrics, score)) is not None:
                    place = f"{out / file}: {model}, {column}{f', {kind}' * bool(kind)}"
                    yield place, cell[kind] if kind else cell, value * score.factor


def _wrong(where: str, cell: Mapping[str, Any], value: float, evaluation: Path) -> str:
    """Return what is wrong with a cell: no seed has the evaluation's number, or the cell's is not the mean of its seeds; "" if all is right."""
    seeds = list(cell.get("seeds") or [cell["ours"]])
    if not any(_is(one, value) for one in seeds):
        return f"{where}: {seeds}, by {evaluation} {value}"
    if not _is(cell["ours"], fmean(seeds)):
        return f"{where}: {cell['ours']}, where its seeds' mean is {fmean(seeds)}"
    return ""


def _is(shown: float | None, value: float) -> bool:
    return shown is not None and abs(shown - value) <= _TOLERANCE * abs(value)
