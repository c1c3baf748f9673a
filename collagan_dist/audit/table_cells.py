"""Audits the tables of a reproduction: the numbers that come from one evaluation of one of its runs must be the evaluation's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from collagan_dist.audit.finding import AuditFinding, Verdict
from collagan_dist.errors import DataError
from collagan_dist.report import paper_tables
from collagan_dist.reproduce import paper
from collagan_dist.reproduce.results import lookup, read_evaluation

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
