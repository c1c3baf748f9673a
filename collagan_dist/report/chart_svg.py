"""Charts over steps, drawn as inline SVG whose colours are variables of page.css: light and dark pages need one drawing."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from collagan_dist.report.charts import Chart, Series
from collagan_dist.runs.thinning import MAX_NUMBER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Draw = Callable[["Figure"], None]

COLOURS = 8
RAMP_COLOURS = 9
# Dashes tell series apart without colour. They shift by one when the palette starts again, so that no two series are alike.
DASHES = ("", "7 3", "2 2", "8 2 2 2")
# matplotlib cannot write CSS variables: it draws with these colours, which nothing else uses, and they are replaced afterwards.
SERIES = tuple(f"#0a0b{index:02x}" for index in range(COLOURS))
RAMP = tuple(f"#0a0d{index:02x}" for index in range(RAMP_COLOURS))
INK_SOFT, GRID, REFERENCE, INK, PAPER = (f"#0a0c{index:02x}" for index in range(5))
_CSS_VARIABLES = {
    **{colour: f"var(--s{index})" for index, colour in enumerate(SERIES)},
    **{colour: f"var(--r{index})" for index, colour in enumerate(RAMP)},
    INK_SOFT: "var(--ink-soft)",
    GRID: "var(--grid)",
    REFERENCE: "var(--reference)",
    INK: "var(--ink)",
    PAPER: "var(--paper)",
}
# "none" keeps text as text, which can be searched and read aloud; the salt makes ids the same in every run.
_STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "collagan", "text.parse_math": False, "font.size": 9}


def colour_index(series: Series) -> int:
    return series.colour % COLOURS


def dash_pattern(series: Series) -> str:
    return DASHES[series.colour % len(DASHES)] if series.colour < COLOURS else DASHES[(series.colour + 1) % len(DASHES)]


def draw_chart(chart: Chart, uid: str) -> str:
    """Return the chart as an <svg> element whose ids all begin with `uid`."""

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.125, 0.115, 0.855, 0.85))
        style_axes(axes)
        for series in chart.series:
            _draw_series(axes, series, chart.noisy)
        _set_scales(axes, chart)
        _draw_references(axes, chart)

    return render((4.3, 2.45), uid, draw)


def render(size: tuple[float, float], uid: str, draw: Draw) -> str:
    """Return what `draw` puts on a figure of `size` inches, as an <svg> element whose ids all begin with `uid`."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        # Without pyplot, which keeps figures and asks for a display.
        figure = Figure(figsize=size)
        FigureCanvasSVG(figure)
        draw(figure)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _to_inline(buffer.getvalue(), uid)


def describe(chart: Chart) -> str:
    """Return the chart in words, for screen readers."""
    ends = []
    for series in chart.series:
        if series.steps:
            step, value = series.last or (series.steps[-1], series.values[-1])
            ends.append(f"{series.label} {value:.4g} at step {step}")
    return f"{chart.title} over steps. Last values: {'; '.join(ends) or 'none'}."


def _draw_series(axes: Axes, series: Series, noisy: bool) -> None:
    steps, values = list(series.steps), list(series.values)
    # matplotlib counts dashes in line widths, the legend in pixels.
    dashes = [float(part) / 1.6 for part in dash_pattern(series).split()]
    line: dict[str, Any] = {"color": SERIES[colour_index(series)], "linewidth": 1.6, "solid_capstyle": "round"}
    if dashes:
        line["dashes"] = dashes
    # Losses jump from step to step: the running mean shows where they go, the faint line how much they jump.
    if noisy and len(values) > 40:
        axes.plot(steps, values, color=line["color"], linewidth=0.7, alpha=0.28)
        values = _running_mean(values, max(3, len(values) // 25))
    axes.plot(steps, values, marker="o" if len(values) <= 25 else None, markersize=3.2, **line)


def _running_mean(values: list[float], width: int) -> list[float]:
    """Return the centred mean over `width` points, over fewer at the ends."""
    import numpy as np

    # "same" pads with zeros; dividing by the padded ones takes them out of the mean.
    ones = np.ones(width)
    return (np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")).tolist()


def style_axes(axes: Axes) -> None:
    """Remove the frame; draw faint horizontal lines and small ticks."""
    axes.patch.set_visible(False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=INK_SOFT, length=0, pad=4)
    axes.margins(x=0.02, y=0.08)


def _set_scales(axes: Axes, chart: Chart) -> None:
    import numpy as np
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    values = np.asarray([value for series in chart.series for value in series.values])
    formatter = FuncFormatter(lambda value, _: format_tick(value))
    if chart.from_zero:
        axes.set_ylim(0, max(float(values.max()) * 1.1, 1e-3) if len(values) else 1)
    # Percentiles, so that a single spike does not make the axis logarithmic.
    # The smallest floats have no logarithmic axis below them.
    elif len(values) and values.min() > 1 / MAX_NUMBER and np.percentile(values, 99) > 30 * np.percentile(values, 1):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=8))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if len(values) and values.min() == values.max() != 0:
            # matplotlib would zoom in on the rounding of a constant.
            axes.set_ylim(min(0.0, 1.5 * float(values[0])), max(0.0, 1.5 * float(values[0])))
    axes.yaxis.set_major_formatter(formatter)
    # A run that began at 0 is shown from 0; one that continues another's steps is not.
    if axes.get_xlim()[0] < 0.3 * axes.get_xlim()[1]:
        axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(formatter)


def _draw_references(axes: Axes, chart: Chart) -> None:
    """Draw reference values as dashed lines with their names, and resumes and rollbacks as dotted verticals."""
    for name, value in chart.references:
        axes.axhline(value, color=REFERENCE, linewidth=1, dashes=(4, 3), zorder=1)
        axes.annotate(
            name, (0.995, value), xycoords=("axes fraction", "data"), xytext=(0, 2), textcoords="offset points",
            ha="right", va="bottom", fontsize=8, color=INK_SOFT,
        )  # fmt: skip
    for step in chart.marks:
        axes.axvline(step, color=REFERENCE, linewidth=0.9, dashes=(1, 2), zorder=1)


def format_tick(value: float) -> str:
    """Write a tick in few characters: 20k, 3e-5."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}".replace("-", "−")
    if 0 < abs(value) < 1e-3:
        digits, exponent = f"{value:.2e}".split("e")
        return f"{float(digits):g}e{int(exponent)}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def _to_inline(text: str, uid: str) -> str:
    """Turn an SVG file into an element of the page, with ids of its own and the page's colours."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # matplotlib's style sheet would change the whole page, and its list of fonts comes with every word; page.css has both.
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r" font-family: [^;]*;", "", text)
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1)
    # Two charts of one page may not share an id: clip paths would be mixed up.
    text = re.sub(r'\bid="([^"]*)"', rf'id="{uid}-\1"', text)
    text = re.sub(r"url\(#", f"url(#{uid}-", text)
    text = re.sub(r'xlink:href="#', f'href="#{uid}-', text)
    # Two digits are a hundredth of a point, and halve the page.
    text = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), text)
    for colour, variable in _CSS_VARIABLES.items():
        text = text.replace(colour, variable)
    return text
