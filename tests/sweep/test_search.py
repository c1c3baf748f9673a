"""Which values a trial gets: pure functions that draw evenly, learn where they should, and survive being asked again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import stats

from collagan_dist.sweep import search
from collagan_dist.sweep.dimensions import Choice, Interval, Simplex
from collagan_dist.sweep.search import Told
from tests.sweep.test_space import ADV, REC, space

KEYS = ("a", "b", "c")
LR = {"optim.generator.lr": {"loguniform": [1e-4, 1e-2]}}


def test_a_simplex_is_drawn_evenly() -> None:
    """As Dirichlet(1, 1, 1): each value, and the pairs."""
    simplex = Simplex(KEYS, 2.0)
    draws = np.random.default_rng(0).random((20_000, 2))
    drawn = np.array([list(simplex.values({"a#": a, "b#": b}).values()) for a, b in draws])
    expected = 2 * np.random.default_rng(1).dirichlet((1, 1, 1), 20_000)
    assert np.allclose(drawn.sum(1), 2) and drawn.min() >= 0
    for column in range(3):
        assert stats.ks_2samp(drawn[:, column], expected[:, column]).pvalue > 1e-3
    assert np.allclose(np.cov(drawn.T), np.cov(expected.T), atol=0.01)


@given(some.lists(some.floats(0, 1), min_size=2, max_size=2))
def test_a_simplex_and_its_draws_are_each_others_inverse(draws: list[float]) -> None:
    simplex = Simplex(KEYS, 1.0)
    values = simplex.values({"a#": draws[0], "b#": draws[1]})
    params = simplex.params(values)
    assert params is not None
    assert list(simplex.values(params).values()) == pytest.approx(list(values.values()), abs=1e-9)
    assert (
        simplex.params({"a": 0.5, "b": 0.6, "c": 0.1}) is None
        and simplex.params({"a": 1.5, "b": -0.5, "c": 0.0}) is None
    )


@settings(max_examples=50)
@given(some.integers(0, 2**30), some.floats(0, 1))
def test_a_moved_value_is_another_one_inside(seed: int, part: float) -> None:
    generator = np.random.default_rng(seed)
    for one in (Interval("a", 1e-4, 1e-2, log=True), Interval("a", -1.0, 1.0), Interval("a", 1, 9, whole=True)):
        value: Any = one.low + part * (one.high - one.low)
        value = round(value) if one.whole else value
        moved = one.moved({"a": value}, generator)["a"]
        assert one.low <= moved <= one.high and type(moved) is type(value)
        assert moved != value or value in (one.low, one.high)
    choice = Choice("a", (1, 2, 3))
    assert choice.moved({"a": 2}, generator)["a"] in (1, 3)
    values = {"a": 0.2 + part / 2, "b": 0.1, "c": 0.7 - part / 2}
    moved = Simplex(KEYS, 1.0).moved(values, generator)
    assert sum(moved.values()) == pytest.approx(1) and min(moved.values()) >= 0 and moved != values


def test_the_same_question_has_the_same_answer(tmp_path: Path) -> None:
    for kind in ("random", "tpe"):
        one = space(tmp_path, {"search": kind, "space": ADV | LR})
        told = [Told(search.propose(one, 0, n, 30, ())[0], {}, (float(n % 7),)) for n in range(12)]
        answers = {
            json.dumps(search.propose(one, seed, number, 30, told))
            for seed in (0, 1)
            for number in (12, 13)
            for _ in range(2)
        }
        assert len(answers) == 4


def test_a_logarithmic_range_is_drawn_evenly_by_its_logarithm(tmp_path: Path) -> None:
    one = space(tmp_path, {"space": LR})
    drawn = np.log10([search.propose(one, 0, number, 400, ())[0]["optim.generator.lr"] for number in range(400)])
    assert stats.kstest(drawn, stats.uniform(-4, 2).cdf).pvalue > 1e-3


def test_tpe_learns(tmp_path: Path) -> None:
    """The best of 40 on a bowl around lr 1e-3, rec 100: nearer to it than random's, over ten seeds."""

    def badness(values: dict[str, Any]) -> float:
        return float(
            np.log10(values["optim.generator.lr"] / 1e-3) ** 2
            + np.log10(values["loss.weights.inpainting.rec"] / 100) ** 2
        )

    def best(kind: str, seed: int) -> float:
        one = space(tmp_path, {"metric": "landmark_error", "search": kind, "space": REC | LR})
        told: list[Told] = []
        for number in range(40):
            values, notes = search.propose(one, seed, number, 40, told)
            told.append(Told(values, notes, (badness(values),)))
        return min(one.metrics[0] for one in told if one.metrics)

    found = {kind: np.log([best(kind, seed) for seed in range(10)]).mean() for kind in ("random", "tpe")}
    assert found["tpe"] < found["random"] - 0.5


def test_nsga2_evolves(tmp_path: Path) -> None:
    """Two aims at odds in lr, one that both share in rec: later trials come nearer to the shared one than random draws do. Its notes
    travel through JSON, as in trial.json."""

    def aims(values: dict[str, Any]) -> tuple[float, float]:
        lr, rec = (
            np.log10(values["optim.generator.lr"]),
            40 * np.log10(values["loss.weights.inpainting.rec"] / 100) ** 2,
        )
        return (-((lr + 4) ** 2) - rec, (lr + 2) ** 2 + rec)

    one = space(tmp_path, {"metric": ["psnr_hole", "landmark_error"], "search": "nsga2", "space": REC | LR})
    first, last = [], []
    for seed in range(3):
        told: list[Told] = []
        for number in range(120):
            values, notes = search.propose(one, seed, number, 120, told)
            assert values not in [known.values for known in told]
            told.append(Told(values, json.loads(json.dumps(notes)), aims(values)))
        off = np.abs([np.log10(known.values["loss.weights.inpainting.rec"] / 100) for known in told])
        first.append(np.median(off[:30]))
        last.append(np.median(off[-30:]))
        assert len({value for known in told for key, value in known.notes.items() if "generation" in key}) > 2
    assert np.mean(last) < 0.75 * np.mean(first)  # 1.1 without the notes


def test_what_was_tried_outside_and_what_failed_does_no_harm(tmp_path: Path) -> None:
    one = space(tmp_path, {"search": "tpe", "space": ADV | LR})
    inside = search.propose(one, 0, 0, 9, ())[0]
    outside = {**inside, "optim.generator.lr": 5.0}
    told = [Told(outside, {}, (1.0,)), Told(inside, {}, None, failed=True), Told(inside, {}, None)]
    values = search.propose(one, 0, 3, 9, told)[0]
    assert 1e-4 <= values["optim.generator.lr"] <= 1e-2


def test_what_matters_has_the_largest_share(tmp_path: Path) -> None:
    one = space(tmp_path, {"space": ADV | LR | REC})
    drawn = [search.propose(one, 3, number, 60, ())[0] for number in range(60)]
    told = [Told(values, {}, (-((np.log10(values["optim.generator.lr"]) + 3) ** 2),)) for values in drawn]
    (shares,) = search.importance(one, told).values()
    assert sum(shares.values()) == pytest.approx(1) and max(shares, key=lambda key: shares[key]) == "optim.generator.lr"
    assert shares["optim.generator.lr"] > 0.5
