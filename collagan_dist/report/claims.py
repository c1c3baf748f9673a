"""Claims of the paper: what claims.json holds, and the differences it is about as forest plots."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from collagan_dist import structured
from collagan_dist.errors import DataError
from collagan_dist.report import formatting, paper_tables
from collagan_dist.report.vega import INK, PAPER, REFERENCE, SERIES, VegaChart

# Verdict in claims.json, best first: how the summary counts it.
VERDICTS: Final = {"holds": "hold", "does not": "do not", "undecided": "undecided", "not scored": "not scored"}
# As the chips of the page: colour and shape, since not everybody tells the colours apart. The cross is a path in Vega's units.
_COLOURS = {"holds": SERIES[0], "does not": SERIES[1], "undecided": SERIES[7]}
_SHAPES = {"holds": "circle", "does not": "M-1,-1L1,1M1,-1L-1,1", "undecided": "diamond"}
_WIDTH, _ROW_HEIGHT, _AXIS_HEIGHT = 460, 20, 56  # px
_LABEL_WIDTH = 90  # px, at least: Vega does not reckon with bold labels


class _Detail(structured.Record):
    """One number of a claim. Those of earlier versions, and those that compare no models, lack some of it."""

    metric: str = ""
    unit: str = ""
    blended: bool = False
    paper: float | None = None
    ours: float | None = None
    interval: tuple[float, float] | None = None
    change: str = ""  # of a relative change: which way it goes


class Claim(structured.Record):
    claim: str
    about: str = ""  # reproductions of earlier versions do not say it
    table: int
    verdict: str
    paper: str
    ours: str | None
    better: str = ""
    worse: str = ""
    p_holm: float | None = None
    details: tuple[_Detail, ...] = ()


class ClaimsFile(structured.Record):
    """The content of claims.json."""

    note: str = ""
    claims: tuple[Claim, ...] = ()
    controls: tuple[Claim, ...] = ()


def read_claims(folder: Path) -> ClaimsFile:
    """Return the content of claims.json, without claims where there is no such file. Raises DataError."""
    path = folder / "claims.json"
    return structured.read(path, ClaimsFile, DataError, paper_tables.MEND) if path.is_file() else ClaimsFile()


def forest_plots(claims: Sequence[Claim]) -> list[VegaChart]:
    """Return our differences with their intervals beside the paper's, one plot for each table and metric.

    Each metric has a scale of its own: a difference in its unit says how large it is. A multiple of its standard error says how
    many samples there were. Differences to other methods are larger than all others, and have plots of their own.
    """
    plots: dict[tuple[int, bool, str], dict[str, list[dict[str, Any]]]] = {}
    for claim in claims:
        for one in claim.details:
            # A relative change is no difference of two models, and its axis has no better side. Without a verdict nothing is said.
            comparable = claim.better and claim.verdict in _COLOURS and one.interval and one.unit and not one.change
            # Table 1 has each metric twice; the blended one decides.
            if comparable and (one.blended or claim.table != 1):
                plot = plots.setdefault((claim.table, claim.about == "peers", one.metric), {})
                plot.setdefault(claim.about, []).append(_row(claim, one))
    # The sort keeps metrics in the order of the tables' cells.
    return [
        _plot(table, metric, plots[table, peers, metric])
        for table, peers, metric in sorted(plots, key=lambda key: key[:2])
    ]


def _row(claim: Claim, detail: _Detail) -> dict[str, Any]:
    low, high = detail.interval or (0.0, 0.0)

    def signed(*values: float) -> str:
        return f"{' to '.join(f'{v:+.2f}' for v in values)} {detail.unit}".replace("-", "−")

    return {
        "row": f"{claim.better} − {claim.worse}", "verdict": claim.verdict, "unit": detail.unit,
        "difference": detail.ours, "low": low, "high": high, "theirs": detail.paper,
        "Claim": claim.claim, "Verdict": claim.verdict, "Here": signed(detail.ours or 0.0), "95 % interval": signed(low, high),
        "Paper": formatting.MISSING if detail.paper is None else signed(detail.paper),
        "p (Holm)": formatting.MISSING if claim.p_holm is None else formatting.format_p(claim.p_holm),
    }  # fmt: skip


def _plot(table: int, metric: str, groups: dict[str, list[dict[str, Any]]]) -> VegaChart:
    rows = [row for group in groups.values() for row in group]
    heads = {about: formatting.to_words(about) for about in groups} if len(groups) > 1 else {}
    lines = [line for about, group in groups.items() for line in (heads.get(about), *(row["row"] for row in group))]
    lines = list(dict.fromkeys(line for line in lines if line is not None))
    label, sign = formatting.metric_label(metric), formatting.better_sign(metric)
    axis = f"difference in {rows[0]['unit']}, {'better →' if sign > 0 else '← better'}"
    others = ", other methods" if set(groups) == {"peers"} else ", blended" if table == 1 else ""
    return VegaChart(
        f"Table {table}: {label}{others}",
        f"{label}: differences with 95 % intervals. " + "; ".join(f"{r['row']}: {r['Here']}" for r in rows),
        _spec(rows, lines, list(heads.values()), axis),
        width=_WIDTH,
        height=_ROW_HEIGHT * len(lines) + _AXIS_HEIGHT,
    )


def _spec(rows: list[dict[str, Any]], lines: list[str], heads: list[str], axis: str) -> dict[str, Any]:
    bold = {
        "condition": {"test": f"indexof({json.dumps(heads)}, datum.value) >= 0", "value": "bold"},
        "value": "normal",
    }
    tooltip = [{"field": name} for name in ("Claim", "Verdict", "Here", "95 % interval", "Paper", "p (Holm)")]
    y_axis = {
        "title": None,
        "labelExpr": "datum.label",
        "labelFontWeight": bold,
        "labelLimit": 0,
        "minExtent": _LABEL_WIDTH,
    }
    colour = {"field": "verdict", "scale": {"domain": list(_COLOURS), "range": list(_COLOURS.values())}, "legend": None}
    shape = {"field": "verdict", "scale": {"domain": list(_SHAPES), "range": list(_SHAPES.values())}, "legend": None}
    # Only the circle is filled. The diamond hides the interval behind it, so that it is seen as hollow.
    fill = {"condition": {"test": "datum.verdict === 'holds'", "value": SERIES[0]}, "value": PAPER}
    value = {"field": "difference", "type": "quantitative", "title": axis}
    return {
        "data": {"values": rows},
        "encoding": {"y": {"field": "row", "type": "nominal", "scale": {"domain": lines}, "axis": y_axis}, "tooltip": tooltip},
        "layer": [
            {"mark": {"type": "rule", "color": REFERENCE}, "encoding": {"x": {"datum": 0}, "y": None, "tooltip": None}},
            {"mark": {"type": "rule", "strokeWidth": 2}, "encoding": {"x": {**value, "field": "low"}, "x2": {"field": "high"}, "color": colour}},
            # Transparent, so that a narrow interval can be pointed at.
            {"name": "hover", "mark": {"type": "rule", "strokeWidth": 16, "opacity": 0},
             "encoding": {"x": {**value, "field": "low"}, "x2": {"field": "high"}}},
            {"transform": [{"filter": "datum.theirs !== null"}],
             "mark": {"type": "tick", "color": INK, "thickness": 2, "size": 15}, "encoding": {"x": {**value, "field": "theirs"}}},
            {"mark": {"type": "point", "size": 60, "strokeWidth": 2, "opacity": 1},
             "encoding": {"x": value, "shape": shape, "stroke": colour, "fill": fill}},
        ],
    }  # fmt: skip
