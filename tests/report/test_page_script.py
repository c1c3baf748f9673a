"""The page's own script in Chromium: sorted tables, enlarged pictures, charts with values under the pointer."""

import re

import pytest

from collagan_dist.report.page import write_report
from tests.report.browser import after, column, open_tab
from tests.report.page_reader import Page

pytestmark = pytest.mark.browser
TABLE = "Landmark error (px)"


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    return write_report([run], tmp_path_factory.mktemp("page") / "report.html")


def test_a_click_on_a_head_sorts_by_its_column(written, tmp_path):
    plain = after(written, tmp_path, "")
    names = column(plain, TABLE, 0)
    values = [float(text.split()[0]) for text in column(plain, TABLE, 1)[:-1]]
    head = f"[...document.querySelectorAll('caption')].find(c => c.textContent === '{TABLE}').parentElement.tHead.rows[0].cells[1]"
    falling = after(written, tmp_path, f"{head}.click();")
    rising = after(written, tmp_path, f"{head}.click(); {head}.click();")
    for document, expected in ((falling, sorted(values, reverse=True)), (rising, sorted(values))):
        assert [float(text.split()[0]) for text in column(document, TABLE, 1)[:-1]] == expected
        assert sorted(column(document, TABLE, 0)) == sorted(names) and column(document, TABLE, 0)[-1] == "Average"
    assert len(set(values)) > 2
    marks = [re.findall(r'<th [^>]*aria-sort="(\w+)"', document) for document in (plain, falling, rising)]
    assert marks == [[], ["descending"], ["ascending"]]


def test_a_click_on_a_picture_enlarges_it(written, tmp_path):
    found = after(written, tmp_path, "document.querySelector('.picture img').click();")
    assert '<dialog class="zoom" open=""><img' in found
    closed = after(
        written, tmp_path, "document.querySelector('.picture img').click(); document.querySelector('dialog').click();"
    )
    assert '<dialog class="zoom" open' not in closed


def test_charts_are_drawn_live_and_show_values_under_the_pointer(written, tmp_path):
    chart = Page(written.read_text()).charts()[0]
    rows = [row for row in chart.spec["data"]["values"] if row["s"] == 0]
    with open_tab(tmp_path) as tab:
        tab.open(written)
        tab.wait_for("document.querySelectorAll('.vega-embed').length > 1")
        box = tab.evaluate(
            "(({x, y, width, height}) => [x, y, width, height])(document.querySelector('.vega').getBoundingClientRect())"
        )
        # The drawing is as wide as its place and its proportions stay.
        assert box[3] == pytest.approx(box[2] * chart.spec["height"] / chart.spec["width"], abs=3)
        tab.move_pointer(box[0] + box[2] / 2, box[1] + box[3] / 2)
        tab.move_pointer(box[0] + 0.95 * box[2], box[1] + box[3] / 2)
        tab.wait_for("document.querySelector('#vg-tooltip-element.visible')")
        shown = tab.evaluate("document.querySelector('#vg-tooltip-element').innerText").split()
        assert shown[:2] == ["step", f"{rows[-1]['x']:g}"] and float(shown[3].replace("−", "-")) == pytest.approx(
            rows[-1]["y"], rel=1e-3
        )
        assert tab.errors == []
