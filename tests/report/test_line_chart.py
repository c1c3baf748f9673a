"""Specifications of curves: their rows, their scales, what is smoothed, hidden or told apart."""

import itertools
import re
from statistics import fmean

import numpy as np
import pytest

from collagan_dist.report.line_chart import Chart, Series, constants
from collagan_dist.runs.thinning import MAX_NUMBER


def series(values, label="a < b", colour=0) -> Series:
    return Series(label, colour, tuple(range(1, len(values) + 1)), tuple(values))


def chart(values, **changes) -> Chart:
    return Chart("Title", (series(values),), **changes)


def test_many_values_are_smoothed_and_few_of_another_run_are_not():
    values = np.random.default_rng(0).normal(10, 1, 300).tolist()
    rows = Chart("Title", (series(values), series([1.0, 5.0, 1.0]))).drawn().spec["data"]["values"]
    first, second = ([row for row in rows if row["s"] == index] for index in (0, 1))
    assert [row["y"] for row in first] == pytest.approx(values, rel=1e-4)
    assert first[100]["mean"] == pytest.approx(fmean(values[94:107]), rel=1e-4)
    assert first[0]["mean"] == pytest.approx(fmean(values[:7]), rel=1e-4)
    assert [row["mean"] for row in second] == [1, 5, 1]
    assert "mean" not in chart(values, noisy=False).drawn().spec["data"]["values"][0]


def test_every_number_that_a_log_may_hold_can_be_drawn():
    sizes = (0.0, 5e-324, 1e-100, 1.0, MAX_NUMBER)
    for one, other in itertools.product(sizes, (0.0, 1.0, -MAX_NUMBER)):
        svg = chart([other] * 50 + [one], from_zero=one < other, references=(("guessing", 0.5),)).drawn().svg
        assert "NaN" not in svg and "Infinity" not in svg


def heights(values, **changes) -> list[float]:
    """How far each point lies above the first, in px of the SVG."""
    line = re.search(r'<path [^>]*d="(M[^"]*)"[^>]*stroke="var\(--s0\)"', chart(values, **changes).drawn().svg)
    assert line is not None
    points = [-float(y) for y in re.findall(r"[ML][\d.]+,([\d.]+)", line[1])]
    return [point - points[0] for point in points]


def test_wide_ranges_are_logarithmic():
    for values, shape in (([1.0, 10.0, 100.0, 1000.0], [0, 1, 2, 3]), ([1.0, 2.0, 4.0], [0, 1, 3])):
        drawn = np.asarray(heights(values))
        assert drawn == pytest.approx(drawn[-1] * np.asarray(shape) / shape[-1], abs=0.01) and drawn[-1] > 50
    # A value that falls to zero in a line is no wide range.
    assert (
        "type"
        not in chart([0.003 * (16 - step) / 16 + 1e-5 for step in range(17)])
        .drawn()
        .spec["layer"][-2]["encoding"]["y"]["scale"]
    )
    # A single spike does not make an axis logarithmic, nor does a reference below zero have one.
    assert "type" not in chart([1.0] * 200 + [100.0]).drawn().spec["layer"][-2]["encoding"]["y"]["scale"]
    assert "log" not in chart([1.0, 1000.0], references=(("r", -1.0),)).drawn().json


def test_ticks_differ():
    for values in ([14.92, 14.923], [2e-4, 2.01e-4], [1e6, 1e6 + 200], [0.01, 300.0]):
        svg = chart(values).drawn().svg
        labels = re.findall(r'<text text-anchor="end"[^>]*>([^<]*)</text>', svg)
        assert len(labels) > 1 and len(set(labels)) == len(labels), labels


def test_curves_that_never_change_are_named():
    assert chart([2e-4, 2e-4]).constant and chart([14.92, 14.9200001]).constant and chart([0.0, 0.0]).constant
    assert not chart([2e-4]).constant and not chart([2e-4, 2.01e-4]).constant
    flat = Chart("Learning rate", (series([2e-4] * 2, "Learning rate"),))
    several = Chart("Accuracy", (series([0.5] * 2, "Generator"), series([1.0] * 2, "Other")), unit="px")
    assert (
        constants([flat, several])
        == "Constant: Learning rate 0.0002; Accuracy, Generator 0.5 px; Accuracy, Other 1 px."
    )
    assert constants([]) == ""


def test_single_points_are_not_seen_at_once():
    assert chart([1.0, 2.0]).seen_at_once and not chart([1.0]).seen_at_once
    assert not chart([1.0, 2.0], main=False).seen_at_once


def test_no_two_curves_look_alike():
    drawn = Chart("Title", tuple(series([1.0, 2.0], str(index), index % 11) for index in range(20))).drawn()
    assert len({(colour, tuple(dash)) for _, colour, dash in drawn.legend}) == 20
    assert chart([1.0, 2.0]).drawn().legend == ()


def test_texts():
    total = Series("Total", 0, (5, 10), (1.0, 0.123456))
    assert Chart("Loss", (total,)).description == "Loss over steps. Last values: Total 0.1235 at step 10."
    svg = chart([1.0, 2.0], references=(("a < b", 1.5),)).drawn().svg
    assert "a &lt; b" in svg and "hover" not in svg
