"""A report as its reader finds it: tags, visible text, rows of tables, charts."""

import json
import re
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from collagan_dist.report.page import write_report

Point = tuple[float, float]


@dataclass(frozen=True)
class ShownChart:
    """A chart of the page: its title, its text for screen readers, its SVG and specification."""

    title: str
    description: str
    svg: str

    @property
    def spec(self) -> dict[str, Any]:
        """The specification that the page's script draws again."""
        text = re.search(r'<script type="application/json">(.*?)</script>', self.svg, re.DOTALL)
        assert text is not None
        return json.loads(text[1])


@dataclass(frozen=True)
class ShownSpec:
    """A chart of the page in Vega-Lite: the specification that the page's script draws, and the drawing for no script."""

    spec: dict
    svg: str

    @property
    def rows(self) -> list[dict]:
        return self.spec["data"]["values"]

    def layer(self, number: int) -> list[dict]:
        """The data that layer `number` has for itself."""
        return self.spec["layer"][number]["data"]["values"]

    def marks(self, number: int) -> list[Point]:
        """Where the marks of layer `number` are drawn, in the order of its data; y grows downwards."""
        found = re.search(rf'<g class="mark-symbol role-mark layer_{number}_marks"[^>]*>(.*?)</g>', self.svg, re.DOTALL)
        return [(float(x), float(y)) for x, y in re.findall(r"translate\(([-\d.e]+),([-\d.e]+)\)", found[1])]

    def lines(self, number: int) -> list[list[Point]]:
        """The points of the lines of layer `number`."""
        paths = re.findall(
            rf'<g class="mark-line role-mark layer_{number}_marks"[^>]*><path[^>]* d="([^"]*)"', self.svg
        )
        return [[(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.e]+),([-\d.e]+)", path)] for path in paths]


def is_affine(drawn: list[float], true: list[float], tolerance: float = 0.03) -> bool:
    """Whether `drawn` is `true` on some linear axis, larger to the right, within `tolerance` points of 1/72 inch."""
    slope, offset = np.polyfit(true, drawn, 1)
    return bool(np.abs(np.polyval((slope, offset), true) - drawn).max() < tolerance and slope > 0)


@dataclass
class Page(HTMLParser):
    """Tags with their attributes, visible text and the text of table rows."""

    source: str
    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    _open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in ("meta", "img", "br", "wbr", "line"):
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if {"style", "script"} & set(self._open):
            return
        self.texts.append(data)
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def row(self, name: str, count: int | None = None) -> list[str]:
        """The cells of the first row called `name` (with `count` cells)."""
        return next(row for row in self.rows if row and row[0] == name and count in (None, len(row)))

    def table(self, *heads: str) -> dict[str, dict[str, str]]:
        """The table whose heads begin with `heads`: by the name of a row, its cells by their heads."""
        start = next((at for at, row in enumerate(self.rows) if tuple(row[: len(heads)]) == heads), len(self.rows))
        header, *rows = self.rows[start:] or [[]]
        of_table = takewhile(lambda row: len(row) == len(header) and row[0] != header[0], rows)
        return {row[0]: dict(zip(header, row, strict=True)) for row in of_table}

    def runnable_scripts(self) -> int:
        """How many scripts a browser would run: not those that hold data of charts."""
        return sum(tag == "script" and "type" not in attrs for tag, attrs in self.tags)

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] for _, attrs in self.tags if attribute in attrs]

    def charts(self) -> list[ShownChart]:
        found = re.findall(
            r'<figure class="chart".*?<span class="title">(.*?)(?: <span class="unit">.*?)?</span>.*?'
            r'role="img" aria-label="([^"]*)"[^>]*>(.*?)</figure>',
            self.source, re.DOTALL,
        )  # fmt: skip
        return [ShownChart(unescape(title), unescape(text), svg) for title, text, svg in found]

    def chart(self, title: str, index: int = 0) -> ShownChart:
        return [chart for chart in self.charts() if chart.title == title][index]

    def spec(self, title: str, index: int = 0) -> ShownSpec:
        found = re.findall(
            r'<figure class="chart".*?<span class="title">(.*?)(?: <span class="unit">.*?)?</span>.*?<div class="drawn">(.*?)</div>'
            r'\s*<script type="application/json">(.*?)</script>',
            self.source, re.DOTALL,
        )  # fmt: skip
        return [ShownSpec(json.loads(spec), svg) for name, svg, spec in found if unescape(name) == title][index]

    def pictures(self) -> list[dict[str, str]]:
        return [attrs for tag, attrs in self.tags if tag == "img"]


def read_report(*paths: Path) -> Page:
    """Write the page about these folders and read it."""
    return Page(write_report(paths).read_text(encoding="utf-8"))
