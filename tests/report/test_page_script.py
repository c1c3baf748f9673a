"""The page's own script in Chromium: sorted tables, enlarged pictures."""

import re

import pytest

from collagan_dist.report.page import write_report
from tests.report.browser import after, column

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
