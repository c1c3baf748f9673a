"""The plan's plot: images per second and efficiency by ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from collagan_dist.report.vega import SERIES, write_picture

_IDEAL = "ideal"


def write_chart(plan: Mapping[str, Any], path: Path) -> None:
    """Write the plot of a plan's scaling, as PNG or SVG by the name. Raises ConfigError for another name."""
    rows = list(_rows(plan))
    names = list(dict.fromkeys(row["series"] for row in rows))
    x = {"field": "ranks", "type": "quantitative", "title": "GPUs",
         "scale": {"type": "log", "base": 2}, "axis": {"values": sorted({row["ranks"] for row in rows})[::2], "labelOverlap": False}}  # fmt: skip
    colour = {
        "field": "series",
        "type": "nominal",
        "title": None,
        "scale": {"domain": names, "range": list(SERIES[: len(names)])},
    }
    line = {"type": "line", "point": {"filled": True, "size": 28}, "strokeWidth": 2}

    def panel(field: str, title: str, **y_axis: Any) -> dict[str, Any]:
        y = {"field": field, "type": "quantitative", "title": title, **y_axis}
        return {"mark": line, "width": 320, "height": 240, "encoding": {"x": x, "y": y, "color": colour}}

    panels = [
        panel("images_per_s", "images/s", scale={"type": "log"}, axis={"values": [10**power for power in range(9)]}),
        panel("efficiency", "rate that each GPU keeps, %", scale={"domain": [0, 100]}),
    ]
    write_picture({"data": {"values": rows}, "hconcat": panels, "spacing": 30}, path)


def _rows(plan: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    labels = {"configured batch": f"{plan['batch']} samples a step", "same share": f"{plan['share']} samples a GPU"}
    for key, label in labels.items():
        for row in plan["scaling"]:
            if row[key] is not None:
                yield {
                    "ranks": row["ranks"], "series": label, "images_per_s": _rounded(row[key]["images_per_s"]),
                    "efficiency": round(100 * row[key]["efficiency"], 2),
                }  # fmt: skip
    yield from _ideal_rows([row for row in plan["scaling"] if row["same share"]])


def _ideal_rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield what numbers of GPUs would make if each kept the rate that one has in the first row."""
    for row in rows:
        alone = rows[0]["same share"]["images_per_s"] / rows[0]["ranks"]
        yield {
            "ranks": row["ranks"],
            "series": _IDEAL,
            "images_per_s": _rounded(alone * row["ranks"]),
            "efficiency": 100.0,
        }


def _rounded(rate: float) -> float:
    """Return four digits of a rate: never 0, which a logarithmic axis does not have."""
    return float(f"{rate:.4g}")
