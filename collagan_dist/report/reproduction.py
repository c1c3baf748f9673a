"""The folder that `collagan reproduce` writes, as a page's tables, claims and figures."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collagan_dist.errors import DataError
from collagan_dist.report import formats
from collagan_dist.report.tables import Cell, Table

_TABLES = (1, 2, 3)
_FIGURES = {
    1: "Completion with and without collaborative learning: (a) original, (b) masked, (c) with, (d) without; "
    "and the labels that were found, over (c).",
    3: "(a) Original, (b) masked, (c) the output as it comes, (d) the composite of eq. 5, of the inpainting-concentrated model.",
    4: "Completion by models with different tasks.",
    5: "Completion by ours and by others, Poisson blended: (a) original, (b) masked, (c) ours, (d) CE, (e) SII, (f) GFC, which needs "
    "square holes and has none in the noise. Columns for noise show models that were trained with it.",
    6: "The last layer that all tasks share, features through the skip connection left out, each map by its own range: (a) the picture, "
    "(b) with three tasks, (c) with one.",
}
_CAPTIONS = {
    "ssim_blended": "Table 1: SSIM (%), Poisson blended",
    "psnr_blended": "Table 1: PSNR (dB), Poisson blended",
    "ssim": "Table 1: SSIM (%), not blended",
    "psnr": "Table 1: PSNR (dB), not blended",
    2: "Table 2: Dice (%), block holes",
    3: "Table 3: landmark error (pixels), block holes",
}
_VERDICTS = ("holds", "does not", "undecided", "not scored")
_SIGNIFICANT = 1.96
_PERCENT = 40.0  # above all decibels and pixels of the paper, below all its percent


@dataclass(frozen=True)
class Reproduction:
    """`figures` are (file, caption)."""

    name: str
    summary: str
    note: str
    claims: Table | None
    tables: tuple[Table, ...]
    figures: tuple[tuple[Path, str], ...]


def is_reproduction(folder: Path) -> bool:
    return (folder / "claims.json").is_file() and not (folder / "config.yaml").is_file()


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
        (c["claim"], tuple(map(Cell, (str(c["table"]), c["verdict"], c["paper"], c["ours"] or formats.NOTHING))))
        for c in claims
    )
    note = "*, **, ***: p < 0.05, 0.01, 0.001 (two-sided, paired over the same test samples)."
    return Table("Claims", ("Claim", "Table", "Verdict", "Paper", "Ours"), rows, note, numeric=False)


def _tables(folder: Path, number: int) -> list[Table]:
    path = folder / f"table{number}.json"
    if not path.is_file():
        return []
    table = json.loads(path.read_bytes())
    cells = table["cells"]
    if number == 1:
        kinds = [kind for kind in _CAPTIONS if isinstance(kind, str)]
        return [
            _table(_CAPTIONS[k], table, {m: {c: row[c][k] for c in row} for m, row in cells.items()}) for k in kinds
        ]
    return [_table(_CAPTIONS[number], table, cells, down="columns")]


def _table(caption: str, table: dict[str, Any], cells: dict[str, Any], down: str = "rows") -> Table:
    """Rows are models, or the table's columns as in the paper's Tables 2 and 3."""
    if down == "rows":
        rows = [(model, [cells[model][column] for column in table["columns"]]) for model in table["rows"]]
        heads = table["columns"]
    else:
        rows = [
            (formats.words(column), [cells[model][column] for model in table["rows"]]) for column in table["columns"]
        ]
        heads = table["rows"]
    body = tuple((name, tuple(_cell(cell) for cell in row)) for name, row in rows)
    return Table(caption, ("Model" if down == "rows" else "Part", *heads), body, compact=True)


def _cell(cell: dict[str, Any]) -> Cell:
    """Ours with its error; below it the paper's and the difference, with a mark where chance does not explain it."""
    # The paper prints PSNR and pixels with two digits, percent with one.
    paper = f"paper {cell['paper']:.{2 if cell['paper'] < _PERCENT else 1}f}"
    ours, se = cell["ours"], cell["se"]
    if ours is None:
        return Cell(formats.NOTHING, paper)
    error = "" if se is None else f" ± {se:.2f}"
    change = f"{ours - cell['paper']:+.2f}".replace("-", "−")
    mark = " ≠" if se is not None and abs(ours - cell["paper"]) > _SIGNIFICANT * se else ""
    spread = f", sd {cell['sd']:.2f}" if "sd" in cell else ""
    return Cell(f"{ours:.2f}{error}", f"{paper}, {change}{mark}{spread}")
