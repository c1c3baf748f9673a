"""Tables 1 to 3: the paper's numbers beside ours, as JSON for programs and as Markdown for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from collagan_dist.report import paper_tables
from collagan_dist.report.formatting import MISSING
from collagan_dist.report.paper_tables import CRITICAL_Z, STARS_NOTE, PaperCell
from collagan_dist.reproduce import paper
from collagan_dist.reproduce.results import Results


def make_table(number: int, results: Results) -> dict[str, Any]:
    """Return {"rows", "columns", "cells": {model: {column: cell}}}; a cell of Table 1 holds one for each of its numbers.

    There is a "note" if picture sizes differ, and in Table 1 "baselines" if they were evaluated.
    """
    by_model: dict[str, Any] = {}
    for model in paper.rows(number):
        row = by_model.setdefault(model, {})
        for column in paper.columns(number):
            found = {kind: _cell(number, model, column, kind, results) for kind in paper.kinds(number)}
            row[column] = found if number == 1 else found[""]
    table = {"rows": list(paper.rows(number)), "columns": list(paper.columns(number)), "cells": by_model}
    # A model trained at another size, as SII is, is compared with the paper's numbers at 128x128 nevertheless.
    sizes = paper_tables.picture_sizes(results.picture_sizes(paper.rows(number)))
    note = f"Scored at different picture sizes, whose numbers are not strictly comparable: {sizes}."
    if sizes:
        table["note"] = note
    if number == 1 and (baselines := _baselines(results)):
        table["baselines"] = baselines
    return table


def _baselines(results: Results) -> dict[str, Any]:
    """Return {baseline: {column: {metric, "samples"}}} of trivial completions of the same holes, not blended."""
    found: dict[str, Any] = {}
    for column in paper.columns(1):
        for kind in paper.METRICS:
            for name, (value, samples) in results.baselines(paper.rows(1), paper.score(1, column, kind)).items():
                found.setdefault(name, {}).setdefault(column, {"samples": samples})[kind] = value
    return found


def _cell(number: int, model: str, column: str, kind: str, results: Results) -> PaperCell:
    """Return the paper's number and ours, which is None if nothing is evaluated, and the mean of several seeds."""
    score = paper.score(number, column, kind)
    values = results.values(model, score)
    cell: PaperCell = {
        "paper": paper.printed(number, model, column, kind),
        "ours": fmean(values) if values else None,
        # The paper gives no errors, so the difference from it has only ours.
        "se": results.error(model, score) if values else None,
    }
    # One seed has no spread, and the Markdown says so.
    if len(values) > 1:
        cell |= {"seeds": values, "sd": stdev(values)}
    return cell


def missing(number: int, results: Results) -> int:
    """Return how many of a table's numbers wait for a run or an evaluation."""
    # A number that the test split does not have, such as the Dice of a class that no picture shows, waits for none.
    scores = [paper.score(number, column, kind) for column in paper.columns(number) for kind in paper.kinds(number)]
    return sum(not results.is_complete(model, score) for model in paper.rows(number) for score in scores)


def table_markdown(number: int, table: dict[str, Any]) -> str:
    """Return a table as Markdown, every cell as paper / ours ± se / difference."""
    lines = [f"# Table {number}", "", *([_plain(table["about"]), ""] if "about" in table else []), _LEGEND, ""]
    lines += [_plain(table["note"]), ""] if "note" in table else []
    # Table 1 becomes four, one for each of its numbers: a cell with four would not be readable.
    for title, by_model in paper_tables.subtables(number, table):
        across, down = table["columns"], table["rows"]
        grid = {(row, column): cell_text(by_model[row][column]) for row in down for column in across}
        if number != 1:  # models are columns, as in the paper
            across, down = down, across
            grid = {(row, column): grid[column, row] for row in down for column in across}
        rows = {row: [grid[row, column] for column in across] for row in down}
        lines += _markdown_grid(f"{title[:1].upper()}{title[1:]}", list(map(_name, across)), rows)
    for title, rows in paper_tables.baseline_tables(table):
        lines += _markdown_grid(title, table["columns"], rows)
    return "\n".join(lines)


def _markdown_grid(title: str, heads: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    lines = [f"## {title}", "", f"| | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    return [*lines, *(f"| {_name(name)} | {' | '.join(values)} |" for name, values in rows.items()), ""]


_LEGEND = (
    "paper / ours ± standard error over the test samples / difference. "
    f"Bold: the difference is larger than {CRITICAL_Z} standard errors. {MISSING}: not scored. "
    "`sd`: spread over seeds, where there are several; otherwise what another seed would change is not covered."
)


def cell_text(cell: PaperCell) -> str:
    change = (
        f"**{paper_tables.difference(cell)}**" if paper_tables.is_significant(cell) else paper_tables.difference(cell)
    )
    spread = f" (sd {cell['sd']:.2f}, {len(cell['seeds'])} seeds)" if "sd" in cell else ""
    return f"{paper_tables.paper_number(cell)} / {paper_tables.our_number(cell)}{spread} / {change}"


def claims_markdown(claims: list[dict[str, Any]], note: str) -> str:
    """Return one row a claim: what the paper finds, what we find, the verdict."""
    lines = ["# Claims", "", note, "", "| table | claim | paper | ours | verdict |", "|---|---|---|---|---|"]
    for one in claims:
        lines.append(
            f"| {one['table']} | {_plain(one['claim'])} | {_plain(one['paper'])} | {_plain(one['ours'] or MISSING)} | {one['verdict']} |"
        )
    return "\n".join([*lines, "", _plain(STARS_NOTE), ""])


def _plain(text: str) -> str:
    # Stars and underscores of model names, such as M*_isd, are no emphasis.
    return text.replace("*", r"\*").replace("_", r"\_")


def _name(text: str) -> str:
    """Return a model, class or point as a Markdown cell."""
    if text.startswith("M") and "_" in text:
        return _plain(text)
    return text.replace("_", " ").capitalize() if text.islower() else text
