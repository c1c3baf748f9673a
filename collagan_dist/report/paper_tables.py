"""How a cell of the paper's Tables 1 to 3 is written, on the report's page and in `collagan reproduce`'s Markdown files.

The tables come as the JSON that `collagan reproduce` writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from pydantic import model_validator

from collagan_dist import structured
from collagan_dist.errors import DataError
from collagan_dist.report.formatting import MISSING

PaperCell = dict[str, Any]
MEND: Final = "run `collagan reproduce` again"

# Of a two-sided normal test at p = 0.05.
CRITICAL_Z: Final = 1.96
STARS_NOTE: Final = "*, **, ***: p < 0.05, 0.01, 0.001 (two-sided, paired over the same test samples)."
# Table: caption for each number of a cell; those of Tables 2 and 3 have one, without a name.
_CAPTIONS: Final[dict[int, dict[str, str]]] = {
    1: {
        "ssim_blended": "SSIM (%), Poisson blended",
        "psnr_blended": "PSNR (dB), Poisson blended",
        "ssim": "SSIM (%), not blended",
        "psnr": "PSNR (dB), not blended",
    },
    2: {"": "Dice (%), block holes"},
    3: {"": "landmark error (pixels), block holes"},
}
# Metric of a table's baselines, which are not blended: caption.
_BASELINE_CAPTIONS: Final = {
    1: {key: _CAPTIONS[1][key] for key in ("ssim", "psnr")},
    2: {"dice": _CAPTIONS[2][""]},
    3: {"landmark_error": _CAPTIONS[3][""]},
}
# Metric in the features of a network: caption.
PERCEPTION: Final = {"perceptual": "Perceptual distance", "frechet": "Fréchet distance"}
# The paper prints percent with one digit and decibels and pixels with two. This is below all its percent and above the rest.
_MIN_PERCENT: Final = 40.0


class _Cell(structured.Record):
    # None for a model that the paper does not have.
    paper: float | None
    ours: float | None
    se: float | None
    sd: float | None = None
    # The number of each seed, of which `ours` is the mean; of a single one there are none.
    seeds: tuple[float, ...] = ()


class _Cells(structured.Record):
    """A cell of Table 1."""

    ssim_blended: _Cell
    psnr_blended: _Cell
    ssim: _Cell
    psnr: _Cell


class _Baseline(structured.Record):
    """Numbers of a baseline in a column, with those of its table."""

    samples: int
    ssim: float | None = None
    psnr: float | None = None
    dice: float | None = None
    landmark_error: float | None = None


C = TypeVar("C", _Cell, _Cells)


class _Table(structured.Record, Generic[C]):
    """The content of tableN.json."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: dict[str, dict[str, C]]
    about: str = ""
    note: str = ""
    parts: dict[str, str] = {}
    perception: dict[str, dict[str, dict[str, float]]] = {}
    baselines: dict[str, dict[str, _Baseline]] = {}

    @model_validator(mode="after")
    def _check_cells(self) -> _Table[C]:
        for row in self.rows:
            if missing := set(self.columns) - self.cells.get(row, {}).keys():
                raise ValueError(f"the row {row} has no {', '.join(sorted(missing))}")
        return self


def read_table(folder: Path, number: int) -> dict[str, Any]:
    """Return the content of tableN.json. Raises DataError."""
    model = _Table[_Cells] if number == 1 else _Table[_Cell]
    return structured.read(folder / f"table{number}.json", model, DataError, MEND).model_dump(exclude_unset=True)


class _Controls(_Table[_Cells]):
    """The content of controls.json: that of Table 1, unless it was not asked for, and the other two."""

    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    cells: dict[str, dict[str, _Cells]] = {}
    table2: _Table[_Cell] | None = None
    table3: _Table[_Cell] | None = None


def read_controls(folder: Path) -> dict[str, Any]:
    """Return the content of controls.json, nothing where there is no such file. Raises DataError."""
    path = folder / "controls.json"
    if not path.is_file():
        return {}
    return structured.read(path, _Controls, DataError, MEND).model_dump(exclude_unset=True)


def control_tables(controls: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    """Return (number of the paper's table, table) for each table of the controls."""
    first = [(1, controls)] if controls.get("rows") else []
    return first + [(number, controls[f"table{number}"]) for number in (2, 3) if controls.get(f"table{number}")]


def column_heads(table: Mapping[str, Any]) -> list[str]:
    """Return the names of the columns, with what they hide where that has a name."""
    parts = table.get("parts", {})
    return [f"{column} {parts[column]}" if column in parts else column for column in table["columns"]]


def subtables(number: int, table: Mapping[str, Any]) -> list[tuple[str, dict[str, dict[str, PaperCell]]]]:
    """Return (caption, {model: {column: cell}}) for each number of a table's cells: four of Table 1, else one."""
    return [
        (
            caption,
            {m: {c: cell[kind] if kind else cell for c, cell in row.items()} for m, row in table["cells"].items()},
        )
        for kind, caption in _CAPTIONS[number].items()
    ]


def baseline_tables(number: int, table: Mapping[str, Any]) -> list[tuple[str, dict[str, list[str]]]]:
    """Return (caption, {baseline: its numbers by column}) for each number of a table, where baselines were scored."""
    found = table.get("baselines", {})
    # Baselines may have been scored on fewer samples than the models, so the caption says on how many.
    counts = {at["samples"] for by_column in found.values() for at in by_column.values()}
    samples = f"{'/'.join(map(str, sorted(counts)))} samples"
    return [
        (
            f"Trivial predictors on the same samples, {caption}, {samples}",
            _numbers_by_column(found, key, table["columns"], ".2f"),
        )
        for key, caption in _BASELINE_CAPTIONS[number].items()
        if found
    ]


def perception_tables(table: Mapping[str, Any]) -> list[tuple[str, dict[str, list[str]]]]:
    """Return (caption, {model or baseline: its numbers by column}) of Table 1's completions in the features of a network."""
    found = table.get("perception", {})
    return [
        (
            f"{caption}, not blended; lower is better",
            _numbers_by_column(found, key, table["columns"], ".3g"),
        )
        for key, caption in PERCEPTION.items()
        if found
    ]


def _numbers_by_column(
    found: Mapping[str, Mapping[str, Mapping[str, float]]], key: str, columns: Sequence[str], form: str
) -> dict[str, list[str]]:
    """Return the number `key` of each row of `found` in each column, as text."""
    return {
        name: [format(row[c][key], form) if key in row.get(c, {}) else MISSING for c in columns]
        for name, row in found.items()
    }


def paper_number(cell: PaperCell) -> str:
    """Write the paper's number with as many digits as the paper prints."""
    if cell["paper"] is None:
        return MISSING
    return f"{cell['paper']:.{2 if cell['paper'] < _MIN_PERCENT else 1}f}"


def our_number(cell: PaperCell) -> str:
    error = "" if cell["se"] is None else f" ± {cell['se']:.2f}"
    return MISSING if cell["ours"] is None else f"{cell['ours']:.2f}{error}"


def difference(cell: PaperCell) -> str:
    """Write our number minus the paper's."""
    if cell["ours"] is None or cell["paper"] is None:
        return MISSING
    return f"{cell['ours'] - cell['paper']:+.2f}".replace("-", "−")


def is_significant(cell: PaperCell) -> bool:
    """Return whether our number differs from the paper's beyond chance over the test samples."""
    # The paper prints no errors, so only ours counts.
    if cell["ours"] is None or cell["se"] is None or cell["paper"] is None:
        return False
    return bool(abs(cell["ours"] - cell["paper"]) > CRITICAL_Z * cell["se"])


def picture_sizes(pixels: Mapping[str, int]) -> str:
    """Return "SII at 64x64 pixels, the others at 128x128" for {model: pixels}; "" where all are the same."""
    (usual, _), *others = Counter(pixels.values()).most_common() or [(0, 0)]
    parts = [
        f"{', '.join(m for m, one in pixels.items() if one == side)} at {side}x{side} pixels" for side, _ in others
    ]
    return f"{', '.join(parts)}, the others at {usual}x{usual}" if parts else ""
