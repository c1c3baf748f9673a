"""The folder that `collagan reproduce` writes, as a page's tables, claims and figures."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collagan_dist.errors import DataError
from collagan_dist.report import formatting, paper_tables
from collagan_dist.report.tables import Cell, Table
from collagan_dist.runs.layout import RunPaths

_TABLES = (1, 2, 3)
_FIGURES = {
    1: "Completion with and without collaborative learning: (a) original, (b) masked, (c) with, (d) without; "
    "and below it in the paper, the labels that were found, over (c).",
    3: "(a) Original, (b) masked, (c) the output as it comes, (d) the composite of eq. 5, of the inpainting-concentrated model.",
    4: "Completion by models with different tasks.",
    5: "Completion by ours and by others, Poisson blended: (a) original, (b) masked, (c) ours, (d) CE, (e) SII, (f) GFC, which cannot "
    "be trained with noise. Columns for patterns show models that were trained with blocks, those for noise models that were trained with it.",
    6: "The last layer that all tasks share, features through the skip connection left out, each map by its own range: (a) the picture, "
    "(b) with three tasks, (c) with one.",
}
_VERDICTS = ("holds", "does not", "undecided", "not scored")


@dataclass(frozen=True)
class Reproduction:
    """`figures` are (file, caption)."""

    name: str
    summary: str
    note: str
    claims: Table | None
    tables: tuple[Table, ...]
    figures: tuple[tuple[Path, str], ...]
    significant: float = paper_tables.CRITICAL_Z


def is_reproduction(folder: Path) -> bool:
    return (folder / "claims.json").is_file() and not RunPaths(folder).exists()


def read_reproduction(folder: Path) -> Reproduction:
    """Raises DataError when a file is none that `collagan reproduce` wrote."""
    try:
        found = json.loads((folder / "claims.json").read_bytes())
        tables = [table for number in _TABLES for table in _tables(folder, number)]
        claims = found["claims"]
        return Reproduction(
            name=folder.name,
            summary=_summary(claims),
            note=found["note"],
            claims=_claims(claims) if claims else None,
            tables=tuple(tables),
            figures=tuple(
                (path, text) for n, text in _FIGURES.items() if (path := folder / f"figure{n}.png").is_file()
            ),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{folder}: is no reproduction that can be shown ({error!r}); run `collagan reproduce` again"
        ) from None


def _summary(claims: list[dict[str, Any]]) -> str:
    counts = Counter(claim["verdict"] for claim in claims)
    words = {"holds": "hold", "does not": "do not", "undecided": "undecided", "not scored": "not scored"}
    said = [f"{counts[verdict]} {words[verdict]}" for verdict in _VERDICTS if counts[verdict]]
    return f"{len(claims)} claims of the paper: {', '.join(said)}." if claims else ""


def _claims(claims: list[dict[str, Any]]) -> Table:
    rows = tuple(
        (c["claim"], tuple(map(Cell, (str(c["table"]), c["verdict"], c["paper"], c["ours"] or formatting.MISSING))))
        for c in claims
    )
    return Table("Claims", ("Claim", "Table", "Verdict", "Paper", "Ours"), rows, paper_tables.STARS_NOTE, numeric=False)


def _tables(folder: Path, number: int) -> list[Table]:
    path = folder / f"table{number}.json"
    if not path.is_file():
        return []
    table = json.loads(path.read_bytes())
    return [
        _table(f"Table {number}: {caption}", table, by_model, "rows" if number == 1 else "columns")
        for caption, by_model in paper_tables.subtables(number, table)
    ] + [_baselines(caption, rows, table["columns"]) for caption, rows in paper_tables.baseline_tables(table)]


def _baselines(caption: str, rows: dict[str, list[str]], columns: list[str]) -> Table:
    body = tuple((formatting.words(name), tuple(map(Cell, values))) for name, values in rows.items())
    return Table(caption, ("Completion", *columns), body, compact=True)


def _table(caption: str, table: dict[str, Any], by_model: dict[str, Any], down: str) -> Table:
    """Rows are models, or the table's columns as in the paper's Tables 2 and 3."""
    if down == "rows":
        rows = [(model, [by_model[model][column] for column in table["columns"]]) for model in table["rows"]]
        heads = table["columns"]
    else:
        rows = [
            (formatting.words(column), [by_model[model][column] for model in table["rows"]])
            for column in table["columns"]
        ]
        heads = table["rows"]
    body = tuple((name, tuple(_cell(cell) for cell in row)) for name, row in rows)
    return Table(caption, ("Model" if down == "rows" else "Part", *heads), body, table.get("note", ""), compact=True)


def _cell(cell: dict[str, Any]) -> Cell:
    """Ours with its error; below it the paper's and the difference, with a mark where chance does not explain it."""
    paper = f"paper {paper_tables.paper_number(cell)}"
    if cell["ours"] is None:
        return Cell(formatting.MISSING, paper)
    mark = " ≠" if paper_tables.is_significant(cell) else ""
    spread = f", sd {cell['sd']:.2f}" if "sd" in cell else ""
    return Cell(paper_tables.our_number(cell), f"{paper}, {paper_tables.difference(cell)}{mark}{spread}")
