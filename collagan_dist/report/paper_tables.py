"""How a table of the paper reads, in Markdown and on the report's page. Knows nothing but the table's JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from collagan_dist.report.formatting import MISSING

PaperCell = dict[str, Any]


CRITICAL_Z: Final = 1.96  # standard errors
STARS_NOTE: Final = "*, **, ***: p < 0.05, 0.01, 0.001 (two-sided, paired over the same test samples)."
# By the numbers of a cell; Tables 2 and 3 have one, without a name.
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
# Above all decibels and pixels of the paper, which have two digits, and below all its percent, which have one.
_PERCENT: Final = 40.0


def subtables(number: int, table: Mapping[str, Any]) -> list[tuple[str, dict[str, dict[str, PaperCell]]]]:
    """(caption, {model: {column: cell}}) of what is shown as one table: a number each of Table 1."""
    return [
        (
            caption,
            {m: {c: cell[kind] if kind else cell for c, cell in row.items()} for m, row in table["cells"].items()},
        )
        for kind, caption in _CAPTIONS[number].items()
    ]


def baseline_tables(table: Mapping[str, Any]) -> list[tuple[str, dict[str, list[str]]]]:
    """(caption, {trivial completion: its numbers by column}) of Table 1, where they were scored."""
    found = table.get("baselines", {})
    counts = {at["samples"] for by_column in found.values() for at in by_column.values()}
    on = f"{'/'.join(map(str, sorted(counts)))} samples"
    return [
        (
            f"Trivial completions of the same holes, {_CAPTIONS[1][kind]}, {on}",
            {
                name: [f"{row[c][kind]:.2f}" if c in row else MISSING for c in table["columns"]]
                for name, row in found.items()
            },
        )
        for kind in ("ssim", "psnr")
        if found
    ]


def paper_number(cell: PaperCell) -> str:
    """The paper's number with the paper's digits."""
    return f"{cell['paper']:.{2 if cell['paper'] < _PERCENT else 1}f}"


def our_number(cell: PaperCell) -> str:
    error = "" if cell["se"] is None else f" ± {cell['se']:.2f}"
    return MISSING if cell["ours"] is None else f"{cell['ours']:.2f}{error}"


def difference(cell: PaperCell) -> str:
    """Ours minus the paper's."""
    return MISSING if cell["ours"] is None else f"{cell['ours'] - cell['paper']:+.2f}".replace("-", "−")


def is_significant(cell: PaperCell) -> bool:
    """Whether ours differs from the paper by more than chance over the test samples allows."""
    if cell["ours"] is None or cell["se"] is None:
        return False
    return bool(abs(cell["ours"] - cell["paper"]) > CRITICAL_Z * cell["se"])


def picture_sizes(pixels: Mapping[str, int]) -> str:
    """ "SII at 64x64 pixels, the others at 128x128", by the side of each model's pictures; nothing where all are the same."""
    (usual, _), *others = Counter(pixels.values()).most_common() or [(0, 0)]
    odd = [f"{', '.join(m for m, one in pixels.items() if one == side)} at {side}x{side} pixels" for side, _ in others]
    return f"{', '.join(odd)}, the others at {usual}x{usual}" if odd else ""
