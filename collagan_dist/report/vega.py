"""Charts in Vega-Lite: as SVG for pages without scripts, and as a specification that page.js draws again with values under the pointer."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collagan_dist import files
from collagan_dist.errors import ConfigError

_STYLE = Path(__file__).parent / "base.css"
COLOURS = 8
RAMP_COLOURS = 9
# Variables of page.css, so that light and dark pages need one drawing. Vega writes them into the SVG as they are.
SERIES = tuple(f"var(--s{index})" for index in range(COLOURS))
RAMP = tuple(f"var(--r{index})" for index in range(RAMP_COLOURS))
INK, INK_SOFT, GRID, REFERENCE, PAPER = (
    "var(--ink)",
    "var(--ink-soft)",
    "var(--grid)",
    "var(--reference)",
    "var(--paper)",
)
# Ticks in few characters: 20k, 100,005, 3e−5. Larger units than M are known to few readers.
TICK = (
    "abs(datum.value) < 1e3 || abs(datum.value) >= 1e9 ? format(datum.value, '~g')"
    " : format(datum.value, length(format(datum.value, '~s')) < length(format(datum.value, ',')) ? '~s' : ',')"
)
_AXIS = {"domain": False, "ticks": False, "gridColor": GRID, "labelColor": INK_SOFT, "titleColor": INK_SOFT,
         "labelPadding": 6, "titlePadding": 8, "titleFontWeight": "normal", "labelExpr": TICK}  # fmt: skip
THEME: dict[str, Any] = {
    "background": None,
    "aria": False,  # the element around a chart describes it
    "font": "inherit",
    "view": {"stroke": None},
    "axis": _AXIS,
    "axisX": {"grid": False, "domain": True, "domainColor": GRID, "tickCount": 5},
    "axisY": {"tickCount": 5},
    "legend": {
        "orient": "top",
        "title": None,
        "labelColor": INK_SOFT,
        "labelLimit": 0,
        "symbolStrokeWidth": 2.4,
        "symbolType": "stroke",
        "symbolSize": 300,
        "columns": 3,
    },
    "text": {"color": INK_SOFT},
    "range": {"category": list(SERIES), "ordinal": list(RAMP), "ramp": list(RAMP)},
}
_WIDTH, _HEIGHT = 400, 200


@dataclass(frozen=True)
class VegaChart:
    """A chart of the page. `spec` is Vega-Lite of one view, without its size and theme.

    `width` and `height` are in px. page.js draws it as wide as its place on the page, the SVG keeps its proportions.
    `legend` are labels with their colour and dashes, as text of the page, which wraps. A layer named "hover" is page.js's alone.
    """

    title: str
    description: str
    spec: Mapping[str, Any]
    unit: str = ""
    notes: Sequence[str] = ()
    width: int = _WIDTH
    height: int = _HEIGHT
    legend: Sequence[tuple[str, str, Sequence[int]]] = ()

    @property
    def json(self) -> Any:
        """The specification as text of a <script> element."""
        from markupsafe import Markup

        # "</script>" within a string would end the element; every other character is as harmless here as in JSON.
        return Markup(json.dumps(self._sized(), separators=(",", ":")).replace("<", "\\u003c"))

    @property
    def svg(self) -> Any:
        """The chart as an <svg> element."""
        import vl_convert
        from markupsafe import Markup

        spec = {**self._sized(), "config": THEME}
        if "layer" in spec:  # what only a pointer makes visible would make the page larger
            spec["layer"] = [layer for layer in spec["layer"] if layer.get("name") != "hover"]
        text = vl_convert.vegalite_to_svg(spec)
        text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("<svg ", '<svg aria-hidden="true" ', 1)
        # Of ids, Vega counts its clip paths through the process; page.js's charts count theirs from 1 again.
        text = re.sub(r'(\bid="|url\(#)', r"\1static-", text)
        # Not escaped again: Vega escapes all texts of its SVG. The element around it describes it to screen readers.
        return Markup(text)

    def _sized(self) -> dict[str, Any]:
        fit = {"type": "fit", "contains": "padding"}
        return {"width": self.width, "height": self.height, "autosize": fit, "padding": 2, **self.spec}


@functools.cache
def library() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, which names `vegaEmbed` in the page."""
    import vl_convert

    # "</script" within one of its strings would end the element.
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")


def write_picture(spec: Mapping[str, Any], path: Path) -> None:
    """Write a chart that no page shows, in the light page's colours, as PNG or SVG by the file's name. Raises ConfigError."""
    import vl_convert

    check_picture_name(path)
    text = json.dumps({"padding": 8, **spec, "config": {**THEME, "background": "var(--paper)", "font": "sans-serif"}})
    light = dict(re.findall(r"(--[a-z0-9-]+): (#[0-9a-f]+)", _STYLE.read_text().partition("@media")[0]))
    text = re.sub(r"var\((--[a-z0-9-]+)\)", lambda name: light[name[1]], text)
    if path.suffix == ".svg":
        files.write_text(path, vl_convert.vegalite_to_svg(text))
    else:
        files.write_bytes(path, vl_convert.vegalite_to_png(text, scale=2))


def check_picture_name(path: Path) -> None:
    """Raise ConfigError for a name of neither kind that `write_picture` writes."""
    if path.suffix not in (".png", ".svg"):
        raise ConfigError(f"{path}: a plot is a .png or an .svg")
