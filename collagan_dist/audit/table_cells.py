"""Audits tables: what a reproduction's have of an evaluation must be the evaluation's, and a sweep's row must be its trial's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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


def audit_row(out: Path, run: Path) -> AuditFinding | None:
    """Compare a trial's row of OUT/trials.csv with the trial's folder: values and metrics; None for a run of no sweep, or one in training."""
    path, subject = out / "trials.csv", f"{run.name}: row of trials.csv"
    if not path.is_file():
        return None
    try:
        own = next((row for row in sweep_table.table(out) if Path(row["path"]) == run), None)
        if own is None or own["status"] == "running":
            return None
        values = {name.removeprefix("config/"): value for name, value in own.items() if name.startswith("config/")}
        rows, _ = trial_data.read_trials(path, {key: {} for key in values})
    except DataError as error:
        return AuditFinding(subject, "damaged", wrong=(str(error),))
    row = next((one for one in rows if one.number == own["trial"]), None)
    if row is None or (row.samples or 0) < own["samples"]:
        return AuditFinding(subject, "not comparable", notes=("it is older than the trial: the sweep writes it anew",))
    cells: list[tuple[str, Any, Any]] = [
        ("samples", row.samples, own["samples"]),
        *((name, row.scores.get(name), own.get(name)) for name in METRICS),
        *((name, row.values[name], value) for name, value in values.items()),
    ]
    wrong = [
        f"{path}: trial {own['trial']}, {name}: {shown}, by its folder {value}"
        for name, shown, value in cells
        if not _same(shown, value)
    ]
    verdict: Verdict = "differs" if wrong else "equal"
    return AuditFinding(subject, verdict, path.name, f"{len(cells)} cells", wrong=tuple(wrong[:_SHOWN]))


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
