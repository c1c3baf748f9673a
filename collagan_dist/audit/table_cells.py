"""Audits the tables of a reproduction: the numbers that come from one evaluation of one of its runs must be the evaluation's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
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
    wrong = [f"{where}: {shown}, by {evaluation} {value}" for where, shown, value in found if not _is(shown, value)]
    verdict: Verdict = "differs" if wrong else "equal"
    return AuditFinding(subject, verdict, evaluation.stem, f"{len(found)} cells", wrong=tuple(wrong[:_SHOWN]))


def _cells(out: Path, model: str, metrics: dict[str, Any]) -> Iterator[tuple[str, list[float], float]]:
    """Yield (place of a cell, the numbers of its seeds, the evaluation's number)."""
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
                    one = cell[kind] if kind else cell
                    shown = one.get("seeds") or [one["ours"]]
                    yield f"{out / file}: {model}, {column}{f', {kind}' * bool(kind)}", shown, value * score.factor


def _is(shown: list[float], value: float) -> bool:
    return any(one is not None and abs(one - value) <= _TOLERANCE * abs(value) for one in shown)
