"""Charts as inline SVG that takes its colours from the page's style sheet, so it reads in light and dark alike."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from collagan_dist.report.charts import Chart, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = 8
RAMP_COLOURS = 9
MAX_POINTS = 300
# Dashes tell series apart without colour; they change every time the palette is used up as well.
DASHES = ("", "7 3", "2 2", "8 2 2 2")
# matplotlib cannot write CSS variables, so it draws with these marker colours, replaced afterwards.
SERIES = tuple(f"#0a0b{index:02x}" for index in range(COLOURS))
RAMP = tuple(f"#0a0d{index:02x}" for index in range(RAMP_COLOURS))
SOFT, GRID, REFERENCE, INK, PAPER = (f"#0a0c{index:02x}" for index in range(5))
_MARKERS = {
    **{marker: f"var(--s{index})" for index, marker in enumerate(SERIES)},
    **{marker: f"var(--r{index})" for index, marker in enumerate(RAMP)},
    SOFT: "var(--ink-soft)",
    GRID: "var(--grid)",
    REFERENCE: "var(--reference)",
    INK: "var(--ink)",
    PAPER: "var(--paper)",
}
_STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "collagan", "text.parse_math": False, "font.size": 9}


def colour_of(series: Series) -> int:
    return series.colour % COLOURS


def dash_of(series: Series) -> str:
    return DASHES[series.colour % len(DASHES)] if series.colour < COLOURS else DASHES[(series.colour + 1) % len(DASHES)]


def draw(chart: Chart, uid: str) -> str:
    """The chart as an <svg> element whose ids all begin with `uid`."""

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((0.125, 0.115, 0.855, 0.85))
        style(axes)
        for series in chart.series:
            _line(axes, series, chart.noisy)
        _scale(axes, chart)
        _guides(axes, chart)

    return render((4.3, 2.45), uid, paint)


def render(size: tuple[float, float], uid: str, paint: Callable[[Figure], None]) -> str:
    """What `paint` puts on a figure of `size` (inches) as an <svg> element whose ids all begin with `uid`."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size)
        FigureCanvasSVG(figure)
        paint(figure)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _inline(buffer.getvalue(), uid)


def describe(chart: Chart) -> str:
    """The chart in words, for those who cannot see it."""
    ends = []
    for series in chart.series:
        if series.steps:
            ends.append(f"{series.label} {series.values[-1]:.4g} at step {series.steps[-1]}")
    return f"{chart.title} over steps. Last values: {'; '.join(ends) or 'none'}."


def _line(axes: Axes, series: Series, noisy: bool) -> None:
    """Few points are drawn as they are; many as a faint line with its running mean on top."""
    steps, values = _thin(series)
    dashes = [float(part) / 1.6 for part in dash_of(series).split()]
    style: dict[str, Any] = {"color": SERIES[colour_of(series)], "linewidth": 1.6, "solid_capstyle": "round"}
    if dashes:
        style["dashes"] = dashes
    if noisy and len(values) > 40:
        axes.plot(steps, values, color=style["color"], linewidth=0.7, alpha=0.28)
        values = _running_mean(values, max(3, len(values) // 25))
    axes.plot(steps, values, marker="o" if len(values) <= 25 else None, markersize=3.2, **style)


def _thin(series: Series) -> tuple[list[float], list[float]]:
    """At most MAX_POINTS points, each the mean of its neighbours."""
    import numpy as np

    steps, values = np.asarray(series.steps, dtype=float), np.asarray(series.values, dtype=float)
    if len(steps) <= MAX_POINTS:
        return steps.tolist(), values.tolist()
    parts = np.array_split(np.arange(len(steps)), MAX_POINTS)
    return [float(steps[part].mean()) for part in parts], [float(values[part].mean()) for part in parts]


def _running_mean(values: list[float], width: int) -> list[float]:
    """Centred mean over `width` points, over fewer at the ends."""
    import numpy as np

    ones = np.ones(width)
    return (np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")).tolist()


def style(axes: Axes) -> None:
    """No frame, faint horizontal lines, small soft ticks."""
    axes.patch.set_visible(False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=SOFT, length=0, pad=4)
    axes.margins(x=0.02, y=0.08)


def _scale(axes: Axes, chart: Chart) -> None:
    """A logarithmic axis when values span more than a factor of 30, ticks short enough to read."""
    import numpy as np
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    values = np.asarray([value for series in chart.series for value in series.values])
    formatter = FuncFormatter(lambda value, _: short(value))
    if chart.from_zero:
        axes.set_ylim(0, max(float(values.max()) * 1.1, 1e-3) if len(values) else 1)
    elif len(values) and values.min() > 0 and np.percentile(values, 99) > 30 * np.percentile(values, 1):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=8))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if len(values) and values.min() == values.max() != 0:
            # A constant would get an axis zoomed in on rounding; show it against zero.
            axes.set_ylim(min(0.0, 1.5 * float(values[0])), max(0.0, 1.5 * float(values[0])))
    axes.yaxis.set_major_formatter(formatter)
    if axes.get_xlim()[0] < 0.3 * axes.get_xlim()[1]:
        axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(formatter)


def _guides(axes: Axes, chart: Chart) -> None:
    """Reference values as dashed lines with their names, starts after an interruption as dotted verticals."""
    for name, value in chart.references:
        axes.axhline(value, color=REFERENCE, linewidth=1, dashes=(4, 3), zorder=1)
        axes.annotate(
            name, (0.995, value), xycoords=("axes fraction", "data"), xytext=(0, 2), textcoords="offset points",
            ha="right", va="bottom", fontsize=8, color=SOFT,
        )  # fmt: skip
    for step in chart.marks:
        axes.axvline(step, color=REFERENCE, linewidth=0.9, dashes=(1, 2), zorder=1)


def short(value: float) -> str:
    """A tick in few characters: 20k, 3e-5."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}".replace("-", "−")
    if 0 < abs(value) < 1e-3:
        digits, exponent = f"{value:.2e}".split("e")
        return f"{float(digits):g}e{int(exponent)}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def _inline(text: str, uid: str) -> str:
    """From an SVG file to an element of the page: no prologue, no namespaces, ids of its own, colours of the page."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Its style sheet would reach the whole page, its list of fonts comes with every word; page.css has both.
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r" font-family: [^;]*;", "", text)
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1)
    text = re.sub(r'\bid="([^"]*)"', rf'id="{uid}-\1"', text)
    text = re.sub(r"url\(#", f"url(#{uid}-", text)
    text = re.sub(r'xlink:href="#', f'href="#{uid}-', text)
    # Hundredths of a point are plenty and halve the page.
    text = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), text)
    for marker, variable in _MARKERS.items():
        text = text.replace(marker, variable)
    return text
