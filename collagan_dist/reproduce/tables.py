"""Tables 1 to 3: the paper's numbers beside ours, as JSON for programs and as Markdown for people."""

from __future__ import annotations

from statistics import fmean, stdev
from typing import Any

from collagan_dist.reproduce import paper
from collagan_dist.reproduce.results import Results

Cell = dict[str, Any]
NOTHING = "–"
SIGNIFICANT = 1.96  # standard errors
_PERCENT = (
    40.0  # above all decibels and pixels of the paper, which have two digits, and below all its percent, which have one
)
TITLES = {
    1: "Completion at six positions",
    2: "Dice of the classes, percent, block holes",
    3: "Landmark error, pixels, block holes",
}
_KINDS = {
    "ssim_blended": "SSIM, percent, Poisson blended",
    "psnr_blended": "PSNR, dB, Poisson blended",
    "ssim": "SSIM, percent, not blended",
    "psnr": "PSNR, dB, not blended",
}


def make_table(number: int, results: Results) -> dict[str, Any]:
    """{"rows", "columns", "cells": {model: {column: cell}}}; of Table 1 a cell holds one for each of its numbers."""
    cells: dict[str, Any] = {}
    for model in paper.rows(number):
        row = cells.setdefault(model, {})
        for column in paper.columns(number):
            found = {kind: _cell(number, model, column, kind, results) for kind in paper.kinds(number)}
            row[column] = found if number == 1 else found[""]
    return {"rows": list(paper.rows(number)), "columns": list(paper.columns(number)), "cells": cells}


def _cell(number: int, model: str, column: str, kind: str, results: Results) -> Cell:
    """Ours is null where nothing is scored; of several seeds it is their mean, with each of them and their spread."""
    score = paper.score(number, column, kind)
    values = results.values(model, score)
    cell: Cell = {
        "paper": paper.printed(number, model, column, kind),
        "ours": fmean(values) if values else None,
        "se": results.error(model, score) if values else None,
    }
    if len(values) > 1:
        cell |= {"seeds": values, "sd": stdev(values)}
    return cell


def missing(number: int, results: Results) -> int:
    """How many of a table's numbers wait for a run or an evaluation. What the test split cannot tell, as a class that nowhere is, waits for none."""
    scores = [paper.score(number, column, kind) for column in paper.columns(number) for kind in paper.kinds(number)]
    return sum(not results.is_whole(model, score) for model in paper.rows(number) for score in scores)


def parts(number: int, table: dict[str, Any]) -> list[tuple[str, dict[str, dict[str, Cell]]]]:
    """(title, {model: {column: cell}}) of what is shown as one table: a number each of Table 1."""
    if number != 1:
        return [(TITLES[number], table["cells"])]
    return [
        (
            f"{TITLES[1]}: {_KINDS[kind]}",
            {m: {c: cell[kind] for c, cell in row.items()} for m, row in table["cells"].items()},
        )
        for kind in paper.kinds(1)
    ]


def markdown(number: int, table: dict[str, Any]) -> str:
    """Every cell as paper / ours ± se / difference. Models are columns in Tables 2 and 3, as in the paper."""
    lines = [f"# Table {number}", "", _LEGEND, ""]
    for title, cells in parts(number, table):
        across, down = table["columns"], table["rows"]
        grid = {(row, column): text(cells[row][column]) for row in down for column in across}
        if number != 1:
            across, down = down, across
            grid = {(row, column): grid[column, row] for row in down for column in across}
        lines += [f"## {title}", "", f"| | {' | '.join(map(_name, across))} |", f"|---|{'---|' * len(across)}"]
        lines += [f"| {_name(row)} | {' | '.join(grid[row, column] for column in across)} |" for row in down]
        lines += [""]
    return "\n".join(lines)


_LEGEND = (
    "paper / ours ± standard error over the test samples / difference. "
    f"Bold: the difference is larger than {SIGNIFICANT} standard errors. {NOTHING}: not scored. "
    "`sd`: spread over seeds, where there are several; otherwise what another seed would change is not covered."
)


def text(cell: Cell) -> str:
    ours, se = cell["ours"], cell["se"]
    printed = f"{cell['paper']:.{2 if cell['paper'] < _PERCENT else 1}f}"
    if ours is None:
        return f"{printed} / {NOTHING} / {NOTHING}"
    change = f"{ours - cell['paper']:+.2f}".replace("-", "−")
    change = f"**{change}**" if is_significant(cell) else change
    error = "" if se is None else f" ± {se:.2f}"
    spread = f" (sd {cell['sd']:.2f}, {len(cell['seeds'])} seeds)" if "sd" in cell else ""
    return f"{printed} / {ours:.2f}{error}{spread} / {change}"


def is_significant(cell: Cell) -> bool:
    """Whether ours differs from the paper by more than chance over the test samples allows."""
    if cell["ours"] is None or cell["se"] is None:
        return False
    return bool(abs(cell["ours"] - cell["paper"]) > SIGNIFICANT * cell["se"])


def claims_markdown(claims: list[dict[str, Any]], note: str) -> str:
    """One row a claim: what the paper finds, what we find, the verdict."""
    lines = ["# Claims", "", note, "", "| table | claim | paper | ours | verdict |", "|---|---|---|---|---|"]
    for one in claims:
        lines.append(
            f"| {one['table']} | {_plain(one['claim'])} | {_plain(one['paper'])} | {_plain(one['ours'] or NOTHING)} | {one['verdict']} |"
        )
    stars = "\\*, \\*\\*, \\*\\*\\*: p < 0.05, 0.01, 0.001 (two-sided, paired over the same test samples)."
    return "\n".join([*lines, "", stars, ""])


def _plain(text: str) -> str:
    return text.replace("*", r"\*").replace("_", r"\_")


def _name(text: str) -> str:
    """A model, class or point as a Markdown cell; the star of M*_isd is no emphasis."""
    if text.startswith("M") and "_" in text:
        return text.replace("*", r"\*").replace("_", r"\_")
    return text.replace("_", " ").capitalize() if text.islower() else text
