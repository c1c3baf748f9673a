"""Means over bins, and the sentences that they support, on sweeps whose truth is known."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.report.sensitivity import Point, Sensitivity, describe_bins, make_bins, sensitivity, verdict
from collagan_dist.report.sweep_data import Key, Metric, SweepData, read_sweep
from collagan_dist.report.trial_data import TrialData
from tests.report.simulated_sweep import CHOICE, REC, SimulatedSweep

FULL, RUNG = 216, 24


def synthetic(
    sweep: SweepData, shape: Callable[[float], float], count: int = 120, sign: int = 1
) -> tuple[Sensitivity, SweepData, list[TrialData]]:
    """A sweep of full-length runs over one λ whose metric is `shape` of its log10, plus noise."""
    rng = np.random.default_rng(0)
    positions = rng.permutation((np.arange(count) + 0.5) * 3 / count)
    trials = [
        TrialData(n, "done", "search", {REC: float(10**x)}, {"psnr_hole": float(shape(x) + rng.normal(0, 0.1))}, samples=FULL)
        for n, x in enumerate(positions)
    ]  # fmt: skip
    key = Key(REC, "inpainting.rec", "loguniform", 1, 1000)
    found = replace(sweep, trials=tuple(trials), keys=(key,), metrics=(Metric("psnr_hole", sign),))
    return sensitivity(found, key, found.main), found, trials


@pytest.fixture
def sweep(nsga2: SimulatedSweep) -> SweepData:
    return read_sweep(nsga2.out)


def test_bins_are_means_of_quantiles(sweep: SweepData) -> None:
    found, _, trials = synthetic(sweep, lambda x: 18 - x)
    ordered = sorted(trials, key=lambda one: float(one.values[REC] or 0))
    parts = np.array_split(np.array([one.scores["psnr_hole"] for one in ordered]), 6)
    spread = math.sqrt(sum(((part - part.mean()) ** 2).sum() for part in parts) / (120 - 6))
    assert [bin.mean for bin in found.bins] == pytest.approx([part.mean() for part in parts])
    assert [bin.error for bin in found.bins] == pytest.approx([spread / math.sqrt(20)] * 6)
    assert found.bins[0].low == pytest.approx(math.log10(float(ordered[0].values[REC] or 0)))
    assert found.bins[-1].count == 20


def test_a_flat_top_is_found_with_the_loss_on_both_sides(sweep: SweepData) -> None:
    found, swept, _ = synthetic(sweep, lambda x: 18 - 3 * max(0.0, abs(x - 1.5) - 0.5))
    assert found.loss_sides == {"smaller", "larger"} and not found.all_trials
    match = re.fullmatch(
        r"The mean stays within (\S+) dB of its best from (\S+) to (\S+); smaller ones are up to (\S+) dB worse; "
        r"larger ones are up to (\S+) dB worse\.",
        found.sentences[0],
    )
    assert match
    within, low, high, below, above = map(float, match.groups())
    assert 9 < low < 11 and 90 < high < 110 and within < 0.5
    means = [bin.mean for bin in found.bins]
    assert (below, above) == pytest.approx((max(means) - means[0], max(means) - means[-1]), abs=0.006)
    assert "These trials show what the paper says." in verdict([found], swept)


@pytest.mark.parametrize(
    ("shape", "sign", "sides", "sentence", "conclusion"),
    [
        (lambda x: 17 + x, 1, {"smaller"}, "reaches the upper end of the values that were tried", "on one side only"),
        (lambda x: 18, 1, set(), "No loss beyond chance", "These trials do not show it"),
        (lambda x: 2 + x, -1, {"larger"}, "smaller ones may do as well", "on one side only"),
    ],
    ids=["slope", "noise", "smaller is better"],
)
def test_other_shapes(
    sweep: SweepData, shape: Callable[[float], float], sign: int, sides: set[str], sentence: str, conclusion: str
) -> None:
    found, swept, _ = synthetic(sweep, shape, sign=sign)
    assert found.loss_sides == sides and sentence in found.sentences[0]
    assert conclusion in verdict([found], swept)


def test_noise_is_seldom_called_a_difference() -> None:
    """Of keys that do nothing, at most one in eight may seem to, at any number of trials."""
    rng, metric, key = np.random.default_rng(0), Metric("psnr", 1), Key("a", "a", "uniform")
    for count in (8, 16, 60):
        wrong = 0
        for _ in range(100):
            points = [Point(n, x, v, True) for n, (x, v) in enumerate(rng.normal(0, 1, (count, 2)))]
            wrong += bool(describe_bins(key, metric, make_bins(key, points), points)[1])
        assert wrong <= 13, count


def test_few_trials_say_so(sweep: SweepData) -> None:
    _, swept, trials = synthetic(sweep, lambda x: 18 - x, count=12)
    stopped = [replace(one, status="stopped", samples=RUNG) if one.number >= 5 else one for one in trials]
    few = replace(swept, trials=tuple(stopped))
    found = sensitivity(few, few.keys[0], few.main)
    assert found.all_trials and found.sentences[0].startswith("Only 5 full-length runs, so the means include")
    assert sum(bin.count for bin in found.bins) == 12
    fewer = replace(swept, trials=tuple(trials[:7]))
    assert sensitivity(fewer, fewer.keys[0], fewer.main).sentences == ("7 trials: too few for a mean.",)


def test_choices_have_a_mean_each(sweep: SweepData) -> None:
    key = Key(CHOICE, "discriminators", "choice", choices=("per_task", "shared"))
    trials = [
        TrialData(n, "done", "search", {CHOICE: key.choices[n % 2]}, {"psnr_hole": 18 + 0.5 * (n % 2) + 0.01 * n}, samples=FULL)
        for n in range(20)
    ]  # fmt: skip
    found = sensitivity(replace(sweep, trials=tuple(trials)), key, sweep.main)
    assert found.sentences[0] == "The mean is best with shared (n = 10); per_task (n = 10) is 0.51 dB worse."
    assert found.loss_sides is None


def test_stopped_trials_are_compared_at_the_first_rung(shards: Manifest, tmp_path: Path) -> None:
    """Among full-length runs alone, which lie on the flat top, the loss outside it cannot be seen."""
    sweep = read_sweep(SimulatedSweep(tmp_path / "sweep", Path(str(shards.folder)), 60).run().out)
    found = sensitivity(sweep, sweep.keys[0], sweep.main)
    assert found.early_loss_sides == {"smaller", "larger"} and found.loss_sides != found.early_loss_sides
    assert found.sentences[1].startswith("At 24 samples, before any was stopped (60 trials): the mean stays")
    assert "hides a loss outside" in verdict([found], sweep)
    pbt: Any = replace(sweep, scheduler="pbt")
    assert len(sensitivity(pbt, pbt.keys[0], pbt.main).sentences) == 1
