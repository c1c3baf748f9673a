"""What the page shows of a reproduction: claims, tables and figures from the folder that `collagan reproduce` writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collagan_dist import structured
from collagan_dist.errors import DataError
from collagan_dist.report import formatting, paper_tables, pictures
from collagan_dist.report.pictures import Figure
from collagan_dist.report.tables import Cell, Table
from collagan_dist.runs.layout import RunPaths

_TABLES = (1, 2, 3)
_FIGURES = {
    1: "Completion with and without collaborative learning: (a) original, (b) masked, (c) with, (d) without. "
    "The second row of the paper, the predicted labels, is drawn over (c).",
    3: "(a) Original, (b) masked, (c) the generator's output, (d) the composite of eq. 5, by the inpainting-concentrated model.",
    4: "Completion by models with different tasks.",
    5: "Completion by ours and by others, Poisson blended: (a) original, (b) masked, (c) ours, (d) CE, (e) SII, (f) GFC, which cannot "
    "be trained with noise. Columns for patterns show models that were trained with blocks, those for noise models that were trained with it.",
    6: "The last layer that all tasks share, without the features of the skip connection, each map scaled to its own range: "
    "(a) the picture, (b) with three tasks, (c) with one.",
}
# Verdict in claims.json: how the summary counts it.
_VERDICTS = {"holds": "hold", "does not": "do not", "undecided": "undecided", "not scored": "not scored"}


class _Claim(structured.Record):
    claim: str
    about: str = ""  # reproductions of earlier versions do not say it
    table: int
    verdict: str
    paper: str
    ours: str | None


class _ClaimsFile(structured.Record):
    """The content of claims.json."""

    note: str
    claims: tuple[_Claim, ...]
    controls: tuple[_Claim, ...] = ()


@dataclass(frozen=True)
class Reproduction:
    """A reproduction. `figures` are (file, caption)."""

    name: str
    summary: str
    note: str
    claims: tuple[Table, ...]
    tables: tuple[Table, ...]
    figures: tuple[tuple[Path, str], ...]
    critical_z: float = paper_tables.CRITICAL_Z


def is_reproduction(folder: Path) -> bool:
    names = ("claims.json", *(f"table{number}.json" for number in _TABLES))
    return any((folder / name).is_file() for name in names) and not RunPaths(folder).exists()


def reproduction_content(folder: Path) -> dict[str, Any]:
    """Return the content of page.html for a reproduction's folder."""
    found = read_reproduction(folder)
    figures = []
    for path, caption in found.figures:
        name = f"Figure {path.stem.removeprefix('figure')}"
        try:
            picture = pictures.embed(path, pictures.LARGE)
        # An error and no note: a reproduction without its figure is not complete.
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be shown ({error}); remove it and {paper_tables.MEND}") from None
        figures.append(Figure(picture, f"{name}. {caption}", f"{name}: {caption}"))
    return {"title": found.name, "reproduction": found, "figures": figures}


def read_reproduction(folder: Path) -> Reproduction:
    """Read the claims and tables that are there. Raises DataError for a file that `collagan reproduce` did not write."""
    found, path = _ClaimsFile(note="", claims=()), folder / "claims.json"
    if path.is_file():
        found = structured.read(path, _ClaimsFile, DataError, paper_tables.MEND)
    return Reproduction(
        name=folder.name,
        summary=_summary(found.claims),
        # The note says on what was trained: a rehearsal must not be taken for a reproduction.
        note=found.note,
        claims=tuple(
            _claims_table(title, group)
            for title, group in (("Claims", found.claims), ("Scheme and collaboration apart", found.controls))
            if group
        ),
        tables=(*(table for number in _TABLES for table in _read_tables(folder, number)), *_read_controls(folder)),
        figures=tuple((path, text) for n, text in _FIGURES.items() if (path := folder / f"figure{n}.png").is_file()),
    )


def _summary(claims: Sequence[_Claim]) -> str:
    # In the order of _VERDICTS, best first.
    counts = Counter(claim.verdict for claim in claims)
    parts = [f"{counts[verdict]} {label}" for verdict, label in _VERDICTS.items() if counts[verdict]]
    return f"{len(claims)} claims of the paper: {', '.join(parts)}." if claims else ""


def _claims_table(title: str, claims: Sequence[_Claim]) -> Table:
    # A claim whose runs are not scored yet has no number of ours.
    rows = tuple(
        (
            c.claim,
            tuple(
                map(
                    Cell,
                    (str(c.table), c.about, c.verdict, c.paper or formatting.MISSING, c.ours or formatting.MISSING),
                )
            ),
        )
        for c in claims
    )
    headings = ("Claim", "Table", "About", "Verdict", "Paper", "Ours")
    return Table(title, headings, rows, paper_tables.STARS_NOTE, numeric=False)


def _read_tables(folder: Path, number: int) -> list[Table]:
    path = folder / f"table{number}.json"
    # `collagan reproduce --tables` may have made only some.
    if not path.is_file():
        return []
    table = paper_tables.read_table(folder, number)
    predictors = [*paper_tables.baseline_tables(number, table), *paper_tables.perception_tables(table)]
    heads = [formatting.to_words(head) for head in paper_tables.column_heads(table)]
    return _paper_tables("", number, table) + [_predictor_table(caption, rows, heads) for caption, rows in predictors]


def _read_controls(folder: Path) -> list[Table]:
    if not (folder / "controls.json").is_file():
        return []
    by_number = paper_tables.control_tables(paper_tables.read_controls(folder))
    return [table for number, found in by_number for table in _paper_tables("Controls of ", number, found)]


def _paper_tables(prefix: str, number: int, table: Mapping[str, Any]) -> list[Table]:
    parts = paper_tables.subtables(number, table)
    return [_paper_table(f"{prefix}Table {number}: {caption}", number, table, rows) for caption, rows in parts]


def _paper_table(caption: str, number: int, table: Mapping[str, Any], by_model: dict[str, Any]) -> Table:
    models, columns = table["rows"], table["columns"]
    # In the paper models are the rows of Table 1 and the columns of Tables 2 and 3.
    if number == 1:
        headings = ("Model", *paper_tables.column_heads(table))
        rows = [(model, [by_model[model][column] for column in columns]) for model in models]
    else:
        headings = ("Part", *models)
        rows = [(formatting.to_words(column), [by_model[model][column] for model in models]) for column in columns]
    body = tuple((name, tuple(map(_cell, row))) for name, row in rows)
    return Table(caption, headings, body, table.get("note", ""), compact=True)


def _predictor_table(caption: str, rows: dict[str, list[str]], columns: list[str]) -> Table:
    body = tuple((formatting.to_words(name), tuple(map(Cell, values))) for name, values in rows.items())
    return Table(caption, ("Predictor", *columns), body, compact=True)


def _cell(cell: dict[str, Any]) -> Cell:
    """Return our number with its error and, below it, the paper's and the difference."""
    known = cell["paper"] is not None
    paper = f"paper {paper_tables.paper_number(cell)}" if known else ""
    if cell["ours"] is None:
        return Cell(formatting.MISSING, paper)
    # Not bold, as elsewhere for the best: a large difference is neither good nor bad.
    mark = " ≠" if paper_tables.is_significant(cell) else ""
    spread = f", sd {cell['sd']:.2f}" if "sd" in cell else ""
    compared = f"{paper}, {paper_tables.difference(cell)}{mark}" if known else ""
    return Cell(paper_tables.our_number(cell), (compared + spread).removeprefix(", "))
