"""Charts in Vega-Lite: the SVG and the specification show the same, in the page's colours, and end no element of the page."""

import json
import re

import pytest

from collagan_dist.report.vega import SERIES, VegaChart, library

NAME = "</script><b>&\"'"


def chart() -> VegaChart:
    rows = [{"x": step, "y": step % 3, "name": NAME} for step in range(5)]
    encoding = {
        "x": {"field": "x", "type": "quantitative"},
        "y": {"field": "y", "type": "quantitative"},
        "color": {"field": "name", "type": "nominal"},
    }
    return VegaChart("title", "words", {"data": {"values": rows}, "mark": "line", "encoding": encoding})


def test_texts_of_a_chart_end_no_element():
    drawn = chart()
    assert "<" not in drawn.json and json.loads(drawn.json)["data"]["values"][0]["name"] == NAME
    assert "</script>" not in drawn.svg and "&lt;/script&gt;&lt;b&gt;&amp;" in drawn.svg
    assert drawn.svg.startswith('<svg aria-hidden="true" ') and SERIES[0] in drawn.svg


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0, 500, 1500, 20_000], ["0", "500", "1.5k", "20k"]),
        ([100_000, 100_005, 112_500], ["100k", "100,005", "112.5k"]),
        ([-2_500_000, 0.00003, 1e20], ["−2.5M", "0.00003", "1e+20"]),
    ],
)
def test_ticks_are_short_and_exact(values, labels):
    x = {
        "field": "x",
        "type": "quantitative",
        "scale": {"type": "symlog"},
        "axis": {"values": values, "labelOverlap": False},
    }
    drawn = VegaChart(
        "", "", {"data": {"values": [{"x": x} for x in values]}, "mark": "point", "encoding": {"x": x}}
    ).svg
    texts = re.search(r"role-axis-label.*?</g>", drawn, re.DOTALL)[0]
    assert re.findall(r">([^<]+)</text>", texts) == labels


def test_the_library_is_one_script_that_names_its_entry():
    assert "window.vegaEmbed" in library() and "</script" not in library() and "<!--" not in library()
