import json
import re

from collagan_dist.report import paper_tables
from collagan_dist.report.heat_maps import COLOURS, heat_maps


def cell(ours, se=0.3, paper=27.0):
    return {"paper": paper, "ours": ours, "se": se}


def table(**models):
    return {"rows": list(models), "columns": ["nose"], "cells": {name: {"nose": one} for name, one in models.items()}}


def shown(chart):
    return {(one["model"], one["part"]): one for one in chart.spec["data"]["values"]}


def test_colours_count_standard_errors_to_the_better():
    """Both have an error of 0.3, so that 0.42 is one of the difference."""
    models = {f"M{step}": cell(5 + 0.3 * 2**0.5 * step) for step in (-5, -3, -1.5, 0, 1.5, 3, 5)}
    full = {"M*_isd": cell(5.0)}
    for number, colours in ((2, COLOURS), (3, COLOURS[::-1])):  # landmark errors are better when smaller
        (chart,) = heat_maps(number, table(**models, **full))
        found = [shown(chart)[name, "Nose"]["colour"] for name in models]
        assert found == list(colours)
    assert shown(chart)["M*_isd", "Nose"]["text"] == "5.00" and "--panel" in shown(chart)["M*_isd", "Nose"]["colour"]


def test_cells_without_numbers():
    (chart,) = heat_maps(2, table(**{"M_s": cell(None, None), "M_is": cell(4.0, None), "M*_isd": cell(5.0, None)}))
    texts = {model: one["text"] for (model, _), one in shown(chart).items()}
    assert texts == {"M_s": "–", "M_is": "−1.00", "M*_isd": "5.00"}
    assert "--panel" in shown(chart)["M_is", "Nose"]["colour"]  # no error, no colour
    assert heat_maps(2, table(**{"M_s": cell(4.0), "M*_isd": cell(None, None)})) == []
    assert heat_maps(2, table(M_s=cell(4.0))) == []


def test_table_1_with_its_controls(reproduction):
    content = paper_tables.read_table(reproduction, 1)
    charts = heat_maps(1, content, paper_tables.read_controls(reproduction))
    assert [chart.title for chart in charts][1] == "PSNR (dB), Poisson blended" and len(charts) == 4
    raw = json.loads((reproduction / "table1.json").read_text())["cells"]
    ours = {model: raw[model]["O2"]["psnr_blended"]["ours"] for model in ("M_id", "M*_isd")}
    found = shown(charts[1])
    one = found["M_id", "O2 right half"]
    assert one["text"] == one["Difference"] == f"{ours['M_id'] - ours['M*_isd']:+.2f}".replace("-", "−")
    assert one["In the paper"] == "−0.15" and one["Paper"] == "27.81"  # the paper's 27.81 and 27.96
    assert found["M*_i", "O1 left half"]["Paper"] == "–" and len(found) == 6 * 11
    svg = charts[1].svg
    assert len(re.findall(r'fill="var\(--(?:d\d|panel)\)"', svg)) == 6 * 11 and one["text"] in svg and COLOURS[0] in svg
