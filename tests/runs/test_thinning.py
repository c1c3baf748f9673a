import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from collagan_dist.runs.thinning import MAX_POINTS, CurveCollector, EvenlySpread, is_number, spread_evenly


def collected(rows):
    collector = CurveCollector(("kind",))
    for row in reversed(rows):
        collector.add(row)
    return collector.finish()


def test_spread_evenly():
    assert spread_evenly(3, 6) == [0, 1, 2] and spread_evenly(11, 6) == [0, 2, 4, 6, 8, 10]


def test_a_short_log_is_kept_as_it_is():
    """Keys in the order in which the log names them first; a key has points only where it is a number."""
    rows = [
        {"kind": "train", "step": 3, "b": 1, "a": 0.5},
        {"step": 5, "c": "text", "a": True},
        {"step": 9, "c": 2.0, "a": None},
    ]
    found = collected(rows)
    assert list(found.curves) == ["b", "a", "c"] and found.count == 3 and found.last_step == 9
    points = {key: (curve.steps, curve.values, curve.last_step, curve.last) for key, curve in found.curves.items()}
    assert points == {"b": ((3,), (1,), 3, 1), "a": ((3,), (0.5,), 3, 0.5), "c": ((9,), (2,), 9, 2)}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 299, 300, 301, 4096, 4097, 8192, 8193, 30_000]))
def test_sums_are_kept(seed, count):
    """However rows are merged: means weighted by what they stand for give the mean of all, within the extremes."""
    draw = random.Random(seed)
    rows = [
        {"step": step, "v": draw.random(), **({"rare": 1.0} if draw.random() < 0.001 else {})} for step in range(count)
    ]
    found = collected(rows)
    assert len(found.curves["v"].steps) <= MAX_POINTS and found.curves["v"].last == rows[-1]["v"]
    assert (
        abs(sum(found.curves["v"].values) / len(found.curves["v"].values) - sum(row["v"] for row in rows) / count) < 0.1
    )
    assert ("rare" in found.curves) == any("rare" in row for row in rows)
    assert set(found.samples["v"]) <= {row["v"] for row in rows}


@given(st.integers(0, 5000), st.integers(2, 50))
def test_evenly_spread_items(count, limit):
    spread = EvenlySpread(limit)
    for number in range(count):
        spread.add(number)
    items = spread.items()
    assert items == sorted(set(items)) and min(count, limit // 2) <= len(items) <= limit and items[:1] == [0][:count]
    assert count <= limit or max(b - a for a, b in itertools.pairwise(items)) <= 8 * count / limit


def test_what_can_be_drawn():
    assert all(map(is_number, (0, -1, 0.5, 1e100, -1e100, 5e-324)))
    assert not any(map(is_number, (True, None, "1", float("nan"), float("inf"), 1e101, 10**400, -(10**400), [1])))


def test_long_rows_do_not_wait(monkeypatch):
    """Rows become a matrix when they have many bytes, however few they are; the curves are the same."""
    whole, early = CurveCollector(("kind",)), CurveCollector(("kind",))
    flushes, flush = [], CurveCollector._flush
    monkeypatch.setattr(CurveCollector, "_flush", lambda self: flushes.append(self) or flush(self))
    for step in range(100, 0, -1):
        row = {"kind": "train", "step": step, "loss": float(step), f"name {step % 7}": 1.0}
        whole.add(row)
        early.add(row, 1 << 20)
    assert flushes.count(early) == 11 and whole not in flushes
    assert early.finish() == whole.finish()
