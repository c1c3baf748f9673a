"""What the page shows of a reproduction: claims, tables and figures from the folder that `collagan reproduce` writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from collagan_dist.errors import DataError
from collagan_dist.report import formatting, paper_tables, pictures
from collagan_dist.report.claims import VERDICTS, Claim, forest_plots, read_claims
from collagan_dist.report.heat_maps import COLOURS, FULL_MODEL, heat_maps
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


def is_reproduction(folder: Path) -> bool:
    names = ("claims.json", *(f"table{number}.json" for number in _TABLES))
    return any((folder / name).is_file() for name in names) and not RunPaths(folder).exists()


def reproduction_content(folder: Path) -> dict[str, Any]:
    """Return the content of page.html for a reproduction's folder."""
    return {"title": folder.name, "reproduction": read_reproduction(folder), "figures": _figures(folder)}


def read_reproduction(folder: Path) -> dict[str, Any]:
    """Return claims and tables for reproduction.html: `counts` are (verdict, words with their number).

    Raises DataError for a file that `collagan reproduce` did not write.
    """
    found = read_claims(folder)
    controls = dict(paper_tables.control_tables(paper_tables.read_controls(folder)))
    return {
        "name": folder.name,
        # The note says on what was trained: a rehearsal must not be taken for a reproduction.
        "note": found.note or _about(folder),
        "counts": _counts(found.claims),
        "plots": forest_plots((*found.claims, *found.controls)),
        "claims": [
            (f"{name}Table {number}", group)
            for name, claims in (("", found.claims), ("Scheme and collaboration apart: ", found.controls))
            for number in _TABLES
            if (group := [claim for claim in claims if claim.table == number])
        ],
        # `collagan reproduce --tables` may have made only some.
        "tables": [_section(folder, n, controls.get(n)) for n in _TABLES if (folder / f"table{n}.json").is_file()],
        "critical_z": paper_tables.CRITICAL_Z,
        "full_model": FULL_MODEL,
        "heat_colours": COLOURS,
        "stars": paper_tables.STARS_NOTE,
    }


def _figures(folder: Path) -> list[Figure]:
    figures = []
    for number, caption in _FIGURES.items():
        path = folder / f"figure{number}.png"
        if not path.is_file():
            continue
        try:
            picture = pictures.embed(path, pictures.LARGE)
        # An error and no note: a reproduction without its figure is not complete.
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be shown ({error}); remove it and {paper_tables.MEND}") from None
        figures.append(Figure(picture, f"Figure {number}. {caption}", f"Figure {number}: {caption}"))
    return figures


def _counts(claims: Sequence[Claim]) -> tuple[tuple[str, str], ...]:
    counts = Counter(claim.verdict for claim in claims)
    return tuple((verdict, f"{counts[verdict]} {words}") for verdict, words in VERDICTS.items() if counts[verdict])


def _about(folder: Path) -> str:
    """Return what the first table says about the runs, without claims.json."""
    numbers = (n for n in _TABLES if (folder / f"table{n}.json").is_file())
    return next((paper_tables.read_table(folder, n).get("about", "") for n in numbers), "")


def _section(folder: Path, number: int, controls: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a table of the paper: as heat maps, then all of its numbers and those beside it."""
    table = paper_tables.read_table(folder, number)
    predictors = [*paper_tables.baseline_tables(number, table), *paper_tables.perception_tables(table)]
    heads = [formatting.to_words(head) for head in paper_tables.column_heads(table)]
    tables = [
        *_paper_tables("", number, table),
        *(_predictor_table(caption, rows, heads) for caption, rows in predictors),
        *(_paper_tables("Controls of ", number, controls) if controls else ()),
    ]
    return {"number": number, "heat_maps": heat_maps(number, table, controls), "tables": tables}


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
    parts = [paper, paper_tables.difference(cell) + mark] if known else []
    parts += [f"sd {cell['sd']:.2f}"] if "sd" in cell else []
    # Lines break between the parts alone, so that six columns fit.
    return Cell(paper_tables.our_number(cell), ", ".join(part.replace(" ", "\u00a0") for part in parts))
