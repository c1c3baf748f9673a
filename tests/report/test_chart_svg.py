import itertools

import numpy as np
import pytest

from collagan_dist.report.chart_svg import describe, draw_chart, format_tick
from collagan_dist.report.charts import Chart, Series
from collagan_dist.runs.thinning import MAX_NUMBER
from tests.report.page_reader import ShownChart


def drawn(values, **changes) -> ShownChart:
    series = Series("a < b", 0, tuple(range(1, len(values) + 1)), tuple(values))
    return ShownChart("", "", draw_chart(Chart("Title", (series,), **changes), "u1"))


def test_many_points_are_smoothed():
    faint, mean = [line for line in drawn(np.random.default_rng(0).normal(10, 1, 300)).lines() if len(line) > 50]
    heights = [np.abs(np.diff([y for _, y in line])).sum() for line in (faint, mean)]
    assert heights[1] < 0.3 * heights[0]


@pytest.mark.filterwarnings("error")
def test_every_number_that_a_log_may_hold_can_be_drawn():
    sizes = (0.0, 5e-324, 1e-100, 1.0, MAX_NUMBER)
    for one, other in itertools.product(sizes, (*sizes, -1.0, -MAX_NUMBER)):
        assert "nan" not in drawn([one, other], references=(("guessing", 0.5),)).svg
        assert "nan" not in drawn([other] * 50 + [one] * 50, from_zero=one < other).svg


def test_wide_ranges_are_logarithmic():
    assert drawn([1.0, 10.0, 100.0, 1000.0]).has_line([1, 2, 3, 4], [0, 1, 2, 3])
    assert drawn([1.0, 2.0, 4.0]).has_line([1, 2, 3], [1.0, 2.0, 4.0])


def test_ids_are_those_of_the_chart_and_texts_are_escaped():
    svg = drawn([1.0, 2.0], references=(("a < b", 1.5),)).svg
    assert 'id="u1-' in svg and 'url(#u1-' in svg and "a &lt; b" in svg and "#0a0" not in svg  # fmt: skip


def test_texts():
    series = Series("Total", 0, (5, 10), (1.0, 0.123456))
    assert describe(Chart("Loss", (series,))) == "Loss over steps. Last values: Total 0.1235 at step 10."
    assert [format_tick(value) for value in (20000, 3e-5, -1500000, 0)] == ["20k", "3e−5", "−1.5M", "0"]
