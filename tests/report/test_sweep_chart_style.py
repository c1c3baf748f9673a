import math

import pytest

from collagan_dist.report.sweep_chart_style import MetricRange, add_titles, shorten, tick_label, tick_positions
from collagan_dist.report.sweep_data import Metric


@pytest.mark.parametrize("sign", [1, -1])
def test_the_range_is_that_of_the_full_length_runs(sign):
    full, stopped = [sign * value for value in (10.0, 11.0, 12.0)], sign * 2.0
    shown = MetricRange.of(Metric("m", sign), [*full, stopped], full)
    assert all(shown.contains(value) for value in full) and not shown.contains(stopped)
    assert shown.contains(shown.clamp(stopped)) and shown.clamp(full[0]) == full[0]
    assert abs(shown.clamp(stopped) - shown.worst) < 0.2
    assert shown.outside_marker == ("v" if sign > 0 else "^")
    assert MetricRange.of(Metric("m", sign), [*full, stopped], full[:2]).contains(stopped)


def test_ticks_are_few_and_round():
    assert tick_positions(1, 1, False) == [1] and tick_positions(0, 1, False)[-1] == 1
    for low, high in ((1e-4, 1e-2), (30, 300), (3, 4), (1e-9, 1e9)):
        positions = tick_positions(math.log10(low), math.log10(high), True)
        assert 1 <= len(positions) <= 6
    assert [tick_label(at, True) for at in tick_positions(math.log10(30), math.log10(300), True)] == ["30", "100", "300"]  # fmt: skip
    assert tick_label(-4, True) == "1e−4" and shorten("a" * 30) == "a" * 19 + "…"


def test_titles_are_escaped_and_only_in_their_own_chart():
    svg = '<g id="m0-t1"><path/></g><g id="other-t1"></g>'
    titled = add_titles(svg, "m0", {1: "<trial>"})
    assert titled == '<g id="m0-t1" class="trial"><title>&lt;trial&gt;</title><path/></g><g id="other-t1"></g>'
