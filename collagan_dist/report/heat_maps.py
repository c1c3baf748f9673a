"""The paper's tables as heat maps: how far each model is from the full one."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping
from typing import Any, Final

from collagan_dist.report import formatting, paper_tables
from collagan_dist.report.paper_tables import PaperCell
from collagan_dist.report.vega import INK, PAPER, VegaChart

FULL_MODEL: Final = "M*_isd"
# Standard errors between the seven colours, from worse to better. The middle one is within one of them.
_THRESHOLDS = (-4, -2, -1, 1, 2, 4)
COLOURS: Final = tuple(f"var(--d{index})" for index in range(len(_THRESHOLDS) + 1))
_PLAIN = "var(--panel)"
_WIDTH, _ROW_HEIGHT, _LINE_HEIGHT = 460, 23, 12  # px


def heat_maps(number: int, table: Mapping[str, Any], controls: Mapping[str, Any] | None = None) -> list[VegaChart]:
    """Return a heat map for each number of a table's cells, with the controls among its models.

    There is none where the full model has no number.
    """
    more = dict(paper_tables.subtables(number, controls)) if controls else {}
    maps = []
    for caption, by_model in paper_tables.subtables(number, table):
        models = by_model | more.get(caption, {})
        full = models.get(FULL_MODEL, {})
        if any(cell["ours"] is not None for cell in full.values()):
            maps.append(_heat_map(number, caption, models, table))
    return maps


def _heat_map(
    number: int, caption: str, models: Mapping[str, Mapping[str, PaperCell]], table: Mapping[str, Any]
) -> VegaChart:
    sign = -1 if number == 3 else 1  # of errors, smaller ones are better
    parts = dict(zip(table["columns"], paper_tables.column_heads(table), strict=True))
    names = {column: head if number == 1 else formatting.to_words(head) for column, head in parts.items()}
    values = [
        {"model": model, "part": names[column], **_cell(cell, models[FULL_MODEL][column], sign, model == FULL_MODEL)}
        for model, row in models.items()
        for column, cell in row.items()
    ]
    # As in the paper: models are the rows of Table 1 and the columns of the others.
    across, down = ("part", "model") if number == 1 else ("model", "part")
    return VegaChart(
        caption[:1].upper() + caption[1:],
        f"Heat map of differences to {FULL_MODEL}. The table below has the numbers.",
        _spec(values, across, down),
        width=_WIDTH,
        height=_ROW_HEIGHT * len({one[down] for one in values}) + 4 * _LINE_HEIGHT,
    )


def _cell(cell: PaperCell, full: PaperCell, sign: int, is_full: bool) -> dict[str, Any]:
    """Return the texts of a cell and its colour, by how much better it is than the full model in standard errors."""
    shown: dict[str, Any] = {"full": is_full, "colour": _PLAIN, "text": paper_tables.our_number({**cell, "se": None})}
    shown |= {"Here": paper_tables.our_number(cell), "Paper": paper_tables.paper_number(cell)}
    if is_full:
        return shown
    shown["text"] = formatting.MISSING
    for name, key in (("Difference", "ours"), ("In the paper", "paper")):
        compared = {"ours": cell[key], "paper": full[key]}
        shown[name] = paper_tables.difference(compared)
    if cell["ours"] is not None and full["ours"] is not None:
        shown["text"] = shown["Difference"]
        # As if the two errors were independent. They share their samples, so that a paired difference has a smaller one.
        error = ((cell["se"] or 0.0) ** 2 + (full["se"] or 0.0) ** 2) ** 0.5
        if error:
            shown["colour"] = COLOURS[bisect(_THRESHOLDS, sign * (cell["ours"] - full["ours"]) / error)]
    return shown


def _spec(values: list[dict[str, Any]], across: str, down: str) -> dict[str, Any]:
    # Each word of a head has a line of its own: columns are narrow on a phone.
    lines = max(len(one[across].split()) for one in values)
    heads = {"title": None, "orient": "top", "labelAngle": 0, "domain": False, "labelExpr": "split(datum.label, ' ')",
             "labelPadding": 6 + _LINE_HEIGHT * (lines - 1)}  # fmt: skip
    rows = {"title": None, "grid": False, "labelExpr": "datum.label", "labelLimit": 0}
    names = ("Here", "Paper", "Difference", "In the paper")
    return {
        "data": {"values": values},
        "encoding": {
            "x": {"field": across, "type": "nominal", "sort": None, "axis": heads},
            "y": {"field": down, "type": "nominal", "sort": None, "axis": rows},
            "tooltip": [{"field": "model", "title": "Model"}, {"field": "part", "title": "Part"}, *({"field": name} for name in names)],
        },
        "layer": [
            {"mark": {"type": "rect", "stroke": PAPER, "strokeWidth": 2},
             "encoding": {"color": {"field": "colour", "type": "nominal", "scale": None}}},
            {"mark": {"type": "text", "fontSize": 11, "color": INK},
             "encoding": {"text": {"field": "text"},
                          "opacity": {"condition": {"test": "datum.full", "value": 0.75}, "value": 1}}},
        ],
    }  # fmt: skip
