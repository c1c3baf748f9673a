"""Charts in Vega-Lite: the SVG and the specification show the same, in the page's colours, and end no element of the page."""

import json

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


def test_the_library_is_one_script_that_names_its_entry():
    assert "window.vegaEmbed" in library() and "</script" not in library() and "<!--" not in library()
