import math

import numpy as np
import pytest
from scipy import stats

from collagan_dist.reproduce import comparison, paper
from collagan_dist.reproduce.results import Results
from tests.reproduce.evaluated import MANIFEST, random_counts, run_of, write_dice, write_points, write_quality


def test_a_dice_comparison_has_an_interval(tmp_path):
    generator = np.random.default_rng(10)
    runs = [run_of(tmp_path, "M_s"), run_of(tmp_path, "M_is")]
    write_dice(runs[0], random_counts(generator, 80, 0.7))
    write_dice(runs[1], random_counts(generator, 80, 0.72))
    detail = comparison.difference(2, "M_is", "M_s", "", Results(runs, MANIFEST))
    assert detail["interval"] == pytest.approx(stats.t.interval(0.95, 79, detail["ours"], detail["se"]))
    assert detail["interval"][0] > 0 and comparison.decide(comparison.evidence_of_better(detail)) == "holds"
    assert detail["p"] < 0.001 and detail["stars"] == "***" and detail["samples"] == 80


def test_only_seeds_that_have_every_position_show_what_a_seed_changes(tmp_path):
    """Each of four seeds lacks one position; then only seeds 0 and 1 do."""
    generator = np.random.default_rng(13)
    runs = [run_of(tmp_path, "M_i", seed) for seed in range(4)] + [run_of(tmp_path, "M_id")]
    for number, hole in enumerate(paper.columns(1)):
        for run in runs:
            if run.base == "M_id" or run.config.seed != number:
                write_quality(run, hole, np.full(9, 0.9), 27 + run.config.seed**2 + generator.normal(0, 1, 9))
    detail = comparison.difference(1, "M_id", "M_i", "psnr_blended", Results(runs, MANIFEST))
    results = Results(runs[:4], MANIFEST)
    scores = [results.score(1, column, "psnr_blended") for column in paper.columns(1)]
    assert "sd_seeds" not in detail and len(results.values("M_i", scores[0])) == 3
    for run in runs[:4]:
        for hole in ("O3", "O4"):
            write_quality(run, hole, np.full(9, 0.9), 27 + run.config.seed**2 + np.zeros(9))
    detail = comparison.difference(1, "M_id", "M_i", "psnr_blended", Results(runs, MANIFEST))
    results = Results(runs[:4], MANIFEST)
    by_seed = [np.mean([results.seeds("M_i", score)[seed].value for score in scores]) for seed in (2, 3)]
    assert detail["sd_seeds"] == pytest.approx(np.std(by_seed, ddof=1) / np.sqrt(2))


def test_the_seeds_variance_is_part_of_the_error(tmp_path):
    generator = np.random.default_rng(11)
    base = generator.gamma(4, 0.6, (60, 5))
    shifts = (0.0, 0.3, -0.2)
    runs = [run_of(tmp_path, "M_isd", seed) for seed in range(3)] + [run_of(tmp_path, "M_d")]
    for run, shift in zip(runs, (*shifts, 0.5), strict=True):
        write_points(run, base + shift)
    detail = comparison.difference(3, "M_isd", "M_d", "", Results(runs, MANIFEST))
    assert detail["se_samples"] == pytest.approx(0, abs=1e-9) and detail["ours"] == pytest.approx(np.mean(shifts) - 0.5)
    assert detail["se"] == pytest.approx(np.std(shifts, ddof=1) / np.sqrt(3))
    assert detail["freedom"] == pytest.approx(2)  # three seeds, however many samples


def detail(ours, se=0.1):
    return {"ours": ours, "se": se, "freedom": 1e6, "p": None if se is None else 0.001, "higher_is_better": False}


def test_verdicts():
    def better(found):
        return comparison.decide(comparison.evidence_of_better(found))

    def between(found, lowest, highest):
        return comparison.decide(comparison.evidence_of_between(found, lowest, highest))

    assert [better(detail(x)) for x in (-1, 1)] == ["holds", "does not"]
    assert [better(d) for d in (detail(-1) | {"p": 0.05}, detail(-1, None))] == ["undecided"] * 2
    no_worse = [between(detail(x), -0.5, math.inf) for x in (1, -0.2, -0.4, -0.6, -0.8)]
    assert no_worse == ["holds", "holds", "undecided", "undecided", "does not"]
    within = [between(detail(x), -0.5, 0.5) for x in (-0.8, -0.4, 0, 0.4, 0.8)]
    assert within == ["does not", "undecided", "holds", "undecided", "does not"]
    assert between(detail(0, None), -9, 9) == "undecided"


def test_lying_between_bounds_is_what_the_interval_says():
    """p is below .05 exactly where the 95 % interval has no bound in it."""
    for ours in np.linspace(-1, 1, 41):
        one = detail(ours, 0.12) | {"freedom": 7.0}
        low, high = comparison.interval(one)
        expected = "holds" if low > -0.5 and high < 0.5 else "does not" if high < -0.5 or low > 0.5 else "undecided"
        assert comparison.decide(comparison.evidence_of_between(one, -0.5, 0.5)) == expected, ours


def test_several_statements_are_as_sure_as_the_least_and_one_against_refutes():
    assert comparison.all_hold([("holds", 0.01), ("holds", 0.04)]) == ("holds", 0.04)
    assert comparison.all_hold([("holds", 1e-9), ("does not", 0.02)]) == ("does not", 0.04)
    assert comparison.all_hold([("does not", 0.9), ("does not", 0.7)]) == ("does not", 1.0)
    assert comparison.all_hold([("holds", 0.01), ("holds", None)]) == ("undecided", None)
