import math
import re
from dataclasses import replace

import numpy as np
import pytest

from collagan_dist.report.sensitivity import Point, describe_bins, make_bins, sensitivity, verdict
from collagan_dist.report.sweep_data import Key, Metric
from collagan_dist.report.trial_data import TrialData
from tests.report.simulated_sweep import CHOICE, REC

FULL, RUNG = 216, 24


def synthetic(sweep, shape, count=120, sign=1):
    """A sweep of full-length runs over one λ whose metric is `shape` of its log10, plus noise."""
    rng = np.random.default_rng(0)
    points = [(x, shape(x) + rng.normal(0, 0.1)) for x in rng.permutation((np.arange(count) + 0.5) * 3 / count)]
    trials = [trial(n, REC, float(10**x), float(value)) for n, (x, value) in enumerate(points)]
    key = Key(REC, "inpainting.rec", "loguniform", 1, 1000)
    found = replace(
        sweep, trials=tuple(trials), keys=(key,), metrics=(Metric("psnr_hole", "max" if sign > 0 else "min"),)
    )
    return sensitivity(found, key, found.main), found


def trial(number, key, value, psnr) -> TrialData:
    return TrialData(number, "done", "search", {key: value}, {"psnr_hole": psnr}, samples=FULL)


def flat_top(x):
    return 18 - 3 * max(0.0, abs(x - 1.5) - 0.5)


def test_bins_are_means_of_quantiles(nsga2_data):
    found, swept = synthetic(nsga2_data, lambda x: 18 - x)
    ordered = sorted(swept.trials, key=lambda one: one.values[REC])
    parts = np.array_split(np.array([one.scores["psnr_hole"] for one in ordered]), 6)
    spread = math.sqrt(sum(((part - part.mean()) ** 2).sum() for part in parts) / (120 - 6))
    assert [bin.mean for bin in found.bins] == pytest.approx([part.mean() for part in parts])
    assert [bin.error for bin in found.bins] == pytest.approx([spread / math.sqrt(20)] * 6)
    assert found.bins[0].low == pytest.approx(math.log10(ordered[0].values[REC])) and found.bins[-1].count == 20


def test_a_flat_top_is_found_with_the_loss_on_both_sides(nsga2_data):
    found, swept = synthetic(nsga2_data, flat_top)
    assert found.loss_sides == {"smaller", "larger"} and not found.all_trials
    words = r"The mean stays within (.*) dB of its best from (.*) to (.*); smaller ones .* to (.*) dB worse; larger ones .* to (.*) dB worse\."
    within, low, high, below, above = map(float, re.fullmatch(words, found.sentences[0]).groups())
    assert 9 < low < 11 and 90 < high < 110 and within < 0.5
    means = [bin.mean for bin in found.bins]
    assert (below, above) == pytest.approx((max(means) - means[0], max(means) - means[-1]), abs=0.006)
    assert "These trials show what the paper says." in verdict([found], swept)[0]
    assert found.short == f"Best from {low:g} to {high:g}; smaller and larger values are worse."


@pytest.mark.parametrize(
    ("shape", "sign", "sides", "sentence", "conclusion"),
    [
        (lambda x: 17 + x, 1, {"smaller"}, "reaches the upper end of the values that were tried", "on one side only"),
        (lambda x: 18, 1, set(), "No loss beyond chance", "These trials do not show it"),
        (lambda x: 2 + x, -1, {"larger"}, "smaller ones may do as well", "on one side only"),
    ],
)
def test_other_shapes(nsga2_data, shape, sign, sides, sentence, conclusion):
    found, swept = synthetic(nsga2_data, shape, sign=sign)
    assert found.loss_sides == sides and sentence in found.sentences[0]
    assert conclusion in verdict([found], swept)[0]


def test_noise_is_seldom_called_a_difference():
    """Of keys that do nothing, at most one in eight may seem to, at any number of trials."""
    rng, metric, key = np.random.default_rng(0), Metric("psnr", "max"), Key("a", "a", "uniform")
    for count in (8, 16, 60):
        wrong = 0
        for _ in range(100):
            points = [Point(n, x, v, True) for n, (x, v) in enumerate(rng.normal(0, 1, (count, 2)))]
            wrong += bool(describe_bins(key, metric, make_bins(key, points), points).sides)
        assert wrong <= 13, count


def test_few_trials_say_so(nsga2_data):
    _, swept = synthetic(nsga2_data, lambda x: 18 - x, count=12)
    stopped = [replace(one, status="stopped", samples=RUNG) for one in swept.trials[5:]]
    found = sensitivity(replace(swept, trials=(*swept.trials[:5], *stopped)), swept.keys[0], swept.main)
    assert found.all_trials and found.sentences[0].startswith("Only 5 full-length runs, so the means include")
    fewer = replace(swept, trials=swept.trials[:7])
    assert sensitivity(fewer, fewer.keys[0], fewer.main).short == "7 trials: too few for a mean."


def test_choices_have_a_mean_each(nsga2_data):
    key = Key(CHOICE, "discriminators", "choice", choices=("per_task", "shared"))
    trials = tuple(trial(n, CHOICE, key.choices[n % 2], 18 + 0.5 * (n % 2) + 0.01 * n) for n in range(20))
    found = sensitivity(replace(nsga2_data, trials=trials), key, nsga2_data.main)
    assert found.sentences[0] == "The mean is best with shared (n = 10); per_task (n = 10) is 0.51 dB worse."
    assert found.loss_sides is None and found.short == "Best with shared."


def test_stopped_trials_are_compared_at_the_first_rung(nsga2_data):
    """Among full-length runs alone, which lie on the flat top, the loss outside it cannot be seen."""
    _, swept = synthetic(nsga2_data, flat_top)
    trials = [replace(one, curves={"psnr_hole": ((RUNG, one.scores["psnr_hole"] - 4),)}) for one in swept.trials]
    trials = [one if 10 < one.values[REC] < 100 else replace(one, status="stopped", samples=RUNG) for one in trials]
    sweep = replace(swept, trials=tuple(trials), rungs=(RUNG, FULL), scheduler="asha")
    found = sensitivity(sweep, sweep.keys[0], sweep.main)
    assert (found.loss_sides, found.early_loss_sides) == (set(), {"smaller", "larger"})
    assert found.sentences[1].startswith("At 24 samples, before any was stopped (120 trials): the mean stays")
    assert "hides a loss outside" in verdict([found], sweep)[2]
    assert len(sensitivity(replace(sweep, scheduler="pbt"), sweep.keys[0], sweep.main).sentences) == 1
