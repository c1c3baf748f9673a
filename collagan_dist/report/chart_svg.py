"""Charts over steps, drawn as inline SVG whose colours are variables of page.css: light and dark pages need one drawing."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Draw = Callable[["Figure"], None]

COLOURS = 8
RAMP_COLOURS = 9
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
