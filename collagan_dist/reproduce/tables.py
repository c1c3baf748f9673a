"""Tables 1 to 3: the paper's numbers beside ours, as JSON for programs and as Markdown for people."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

from collagan_dist.report import paper_tables
from collagan_dist.report.formatting import MISSING, format_p
from collagan_dist.report.paper_tables import CRITICAL_Z, STARS_NOTE, PaperCell
from collagan_dist.reproduce import paper
from collagan_dist.reproduce.results import Results


def make_table(number: int, results: Results) -> dict[str, Any]:
    """Return {"rows", "columns", "cells": {model: {column: cell}}}; a cell of Table 1 holds one for each of its numbers.

    Table 1 has "parts", what each column is measured on, and "perception" where completions were compared in features. There is a
    "note" where something must be said of the numbers, and "baselines" if they were evaluated.
    """
    table = _cells(number, paper.rows(number), results)
    notes = [paper.columns_note(results.reading)] if number == 1 else []
    # A model trained at another size, as SII is, is compared with the paper's numbers at 128x128 nevertheless.
    if sizes := paper_tables.picture_sizes(results.picture_sizes(paper.rows(number))):
        notes.append(f"Scored at different picture sizes, whose numbers are not strictly comparable: {sizes}.")
    if notes:
        table["note"] = " ".join(notes)
    if baselines := _baselines(number, results):
        table["baselines"] = baselines
    return table | (_perception(results, paper.rows(1)) if number == 1 else {})


def make_controls(tables: Sequence[int], results: Results, models: Collection[str] = ()) -> dict[str, Any]:
    """Return the numbers of the models that the paper does not have: Table 1's as make_table gives it, "table2", "table3".

    Of those in `models` alone, where there are any.
    """
    chosen = {n: [one for one in paper.controls(n) if not models or one in models] for n in tables}
    found: dict[str, Any] = {f"table{n}": _cells(n, names, results) for n, names in chosen.items() if names}
    perception = _perception(results, chosen[1]) if "table1" in found else {}
    return found.pop("table1", {}) | perception | found


def _cells(number: int, models: Sequence[str], results: Results) -> dict[str, Any]:
    by_model: dict[str, Any] = {}
    for model in models:
        row = by_model.setdefault(model, {})
        for column in paper.columns(number):
            found = {kind: _cell(number, model, column, kind, results) for kind in paper.kinds(number)}
            row[column] = found if number == 1 else found[""]
    table = {"rows": list(models), "columns": list(paper.columns(number)), "cells": by_model}
    return table | ({"parts": paper.parts(results.reading)} if number == 1 else {})


def _baselines(number: int, results: Results) -> dict[str, Any]:
    """Return {baseline: {column: {metric, "samples"}}} of trivial predictors on the same samples and holes, not blended."""
    found: dict[str, Any] = {}
    for column in paper.columns(number):
        for kind in paper.METRICS if number == 1 else ("",):
            score = results.score(number, column, kind)
            for name, (value, samples) in results.baselines(paper.rows(number), score).items():
                found.setdefault(name, {}).setdefault(column, {"samples": samples})[score.key] = value
    return found


def _perception(results: Results, models: Sequence[str]) -> dict[str, Any]:
    """Return "perception", {model or baseline: {column: {"perceptual", "frechet"}}} of completions that are not blended, if there are any."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for column in paper.columns(1):
        for key in paper_tables.PERCEPTION:
            score = replace(results.score(1, column, "psnr"), key=key, higher_is_better=False)
            values = {model: fmean(known) for model in models if (known := results.values(model, score))}
            values |= {name: value for name, (value, _) in results.baselines(paper.rows(1), score).items()}
            for name, value in values.items():
                found.setdefault(name, {}).setdefault(column, {})[key] = value
    return {"perception": found} if found else {}


def _cell(number: int, model: str, column: str, kind: str, results: Results) -> PaperCell:
    """Return the paper's number and ours, which is None if nothing is evaluated, and the mean of several seeds."""
    score = results.score(number, column, kind)
    values = results.values(model, score)
    cell: PaperCell = {
        "paper": paper.printed(number, model, column, kind) if model in paper.rows(number) else None,
        "ours": fmean(values) if values else None,
        # The paper gives no errors, so the difference from it has only ours.
        "se": results.error(model, score) if values else None,
    }
    # One seed has no spread, and the Markdown says so.
    if len(values) > 1:
        cell |= {"seeds": values, "sd": stdev(values)}
    return cell


def missing(number: int, results: Results, models: Collection[str]) -> int:
    """Return how many of the numbers of `models` in a table wait for a run or an evaluation."""
    # A number that the test split does not have, such as the Dice of a class that no picture shows, waits for none.
    scores = [results.score(number, column, kind) for column in paper.columns(number) for kind in paper.kinds(number)]
    return sum(not results.is_complete(model, score) for model in models for score in scores)


def table_markdown(number: int, table: dict[str, Any]) -> str:
    """Return a table as Markdown, every cell as paper / ours ± se / difference."""
    return "\n".join([*_head(f"Table {number}", table), *_grids(number, table)])


def controls_markdown(controls: Mapping[str, Any]) -> str:
    """Return the controls' tables as Markdown."""
    grids = [line for number, table in paper_tables.control_tables(controls) for line in _grids(number, table)]
    return "\n".join([*_head("Controls", controls), *grids])


def _head(title: str, table: Mapping[str, Any]) -> list[str]:
    lines = [f"# {title}", "", *([_plain(table["about"]), ""] if "about" in table else []), _LEGEND, ""]
    return lines + ([_plain(table["note"]), ""] if "note" in table else [])


def _grids(number: int, table: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    # Table 1 becomes four, one for each of its numbers: a cell with four would not be readable.
    for title, by_model in paper_tables.subtables(number, table):
        across, down = table["columns"], table["rows"]
        grid = {(row, column): cell_text(by_model[row][column]) for row in down for column in across}
        if number != 1:  # models are columns, as in the paper
            across, down = down, across
            grid = {(row, column): grid[column, row] for row in down for column in across}
        rows = {row: [grid[row, column] for column in across] for row in down}
        heads = paper_tables.column_heads(table) if number == 1 else list(map(_name, across))
        lines += _markdown_grid(f"{title[:1].upper()}{title[1:]}", heads, rows)
    for title, rows in (*paper_tables.baseline_tables(number, table), *paper_tables.perception_tables(table)):
        lines += _markdown_grid(title, list(map(_name, paper_tables.column_heads(table))), rows)
    return lines


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


def claims_markdown(found: Mapping[str, list[dict[str, Any]]], note: str) -> str:
    """Return one row a claim: what the paper finds, what we find, the verdict; then what the controls show."""
    lines = ["# Claims", "", note, ""]
    for title, group in (("The paper's", found["claims"]), ("Scheme and collaboration apart", found["controls"])):
        lines += [
            f"## {title}",
            "",
            "| table | claim | about | paper | ours | p (Holm) | verdict |",
            "|---|---|---|---|---|---|---|",
        ]
        for one in group:
            texts = (one["claim"], one["about"], one["paper"] or MISSING, one["ours"] or MISSING)
            p = MISSING if one.get("p_holm") is None else format_p(one["p_holm"])
            lines.append(f"| {one['table']} | {' | '.join(map(_plain, texts))} | {p} | {one['verdict']} |")
        lines.append("")
    return "\n".join([*lines, _plain(STARS_NOTE), ""])


def _plain(text: str) -> str:
    # Stars and underscores of model names, such as M*_isd, are no emphasis.
    return text.replace("*", r"\*").replace("_", r"\_")


def _name(text: str) -> str:
    """Return a model, class or point as a Markdown cell."""
    if text.startswith("M") and "_" in text:
        return _plain(text)
    return text.replace("_", " ").capitalize() if text.islower() else text
