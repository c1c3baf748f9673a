import math

import pytest

from collagan_dist.report.sweep_chart_style import MetricRange, add_titles, tick_label, tick_positions
from collagan_dist.report.sweep_data import Metric


@pytest.mark.parametrize("sign", [1, -1])
def test_the_range_is_that_of_the_full_length_runs(sign):
    full, stopped = [sign * value for value in (10.0, 11.0, 12.0)], sign * 2.0
    shown = MetricRange.of(Metric("m", sign), [*full, stopped], full)
    assert all(shown.contains(value) for value in full) and not shown.contains(stopped)
    assert shown.clamp(full[0]) == full[0] and abs(shown.clamp(stopped) - shown.worst) < 0.2
    assert MetricRange.of(Metric("m", sign), [*full, stopped], full[:2]).contains(stopped)


def test_ticks_are_round():
    assert [tick_label(at, True) for at in tick_positions(math.log10(30), math.log10(300), True)] == ["30", "100", "300"]  # fmt: skip


def test_titles_are_escaped_and_only_in_their_own_chart():
    svg = '<g id="m0-t1"><path/></g><g id="other-t1"></g>'
    titled = add_titles(svg, "m0", {1: "<trial>"})
    assert titled == '<g id="m0-t1" class="trial"><title>&lt;trial&gt;</title><path/></g><g id="other-t1"></g>'
