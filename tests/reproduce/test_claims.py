import numpy as np
import pytest
from scipy import stats

from collagan_dist.reproduce import claims, paper
from collagan_dist.reproduce.results import Results
from tests.reproduce.evaluated import MANIFEST, run_of, write_points, write_quality


def evaluate(runs, table):
    return {one["claim"]: one for one in claims.evaluate_claims(Results(runs, MANIFEST), (table,))["claims"]}


def test_the_papers_numbers_hold_all_claims_on_table_1(printed):
    found = evaluate(printed, 1)
    assert [claim["verdict"] for claim in found.values()] == ["holds"] * 25
    one = found["Landmarks help completion: M_id beats M_i"]
    assert one["paper"] == "SSIM +0.55 %, PSNR +0.31 dB" and one["ours"].count("***") == 2
    detail = one["details"][1]
    assert detail["metric"] == "psnr" and detail["blended"] and detail["samples"] == 40
    assert detail["positions"]["O1"]["ours"] == pytest.approx(27.57 - 27.23)
    assert (one["better"], one["worse"], detail["unit"]) == ("M_id", "M_i", "dB")
    assert detail["interval"] == pytest.approx(stats.t.interval(0.95, 39, detail["ours"], detail["se"]))
    assert found["Table 1 orders the eight models as printed"]["details"][0]["columns"]["O1"] == pytest.approx(1)
    assert found["SII gives the worst results in all the cases"]["ours"] == "12 of 12"
    assert found["The holes of Table 1 have 40x48 pixels on average"]["ours"] == "40x48"


def test_a_comparison_within_chance_is_undecided_and_a_reverse_one_does_not_hold(tmp_path):
    generator = np.random.default_rng(8)
    runs = [run_of(tmp_path, "M_i"), run_of(tmp_path, "M_id"), run_of(tmp_path, "M_is")]
    for hole in paper.columns(1):
        noise = generator.normal(0, 1, (3, 50))
        write_quality(runs[0], hole, 0.9 + 0.01 * noise[0], 27 + noise[0])
        write_quality(runs[1], hole, 0.9 + 0.01 * noise[1], 27 + noise[1] - noise[1].mean() + noise[0].mean())
        write_quality(runs[2], hole, 0.85 + 0.01 * noise[2], 29 + noise[2])
    found = evaluate(runs, 1)
    assert found["Landmarks help completion: M_id beats M_i"]["verdict"] == "undecided"
    assert found["Segmentation helps completion: M_is beats M_i"]["verdict"] == "does not"  # SSIM fell
    assert found["M_id beats CE"]["verdict"] == "not scored" and found["M_id beats CE"]["ours"] is None


def test_table_3s_reduction(tmp_path):
    generator = np.random.default_rng(9)
    before = generator.gamma(4, 0.6, (200, 5))
    runs = [run_of(tmp_path, "M_d"), run_of(tmp_path, "M*_isd")]
    write_points(runs[0], before)
    noise = generator.normal(0, 0.1, (200, 1))
    write_points(runs[1], 0.72 * before * (1 + noise - noise.mean()))
    claim = evaluate(runs, 3)["The average landmark error falls by 27.7 % from M_d to M*_isd"]
    assert claim["verdict"] == "holds" and claim["paper"] == "−27.7 %" and claim["ours"].endswith("falls")
    (detail,) = claim["details"]
    assert detail["ours"] == pytest.approx(-28, abs=1) and detail["unit"] == "%"
    assert detail["interval"][0] < detail["paper"] < detail["interval"][1]
    write_points(runs[1], before[::-1])
    claim = evaluate(runs, 3)[claim["claim"]]
    assert claim["verdict"] == "does not" and claim["ours"].endswith("no clear change")
    write_points(runs[1], 0.9 * before)
    claim = evaluate(runs, 3)[claim["claim"]]
    assert claim["verdict"] == "does not" and claim["ours"].endswith("falls")  # by 10 %, not by 27.7


def test_comparisons_are_corrected_for_being_many(tmp_path):
    """Two of Table 3's comparisons are scored: each is judged as one of all that are planned, by Holm's steps."""
    generator = np.random.default_rng(5)
    base = generator.gamma(4, 0.6, (200, 5))
    for model, gain in (("M_d", 0.0), ("M_id", 0.014), ("M_isd", 0.3)):
        write_points(run_of(tmp_path, model), base - gain + 0.1 * generator.normal(0, 1, (200, 1)))
    found = claims.evaluate_claims(Results([run_of(tmp_path, m) for m in ("M_d", "M_id", "M_isd")], MANIFEST), (3,))
    tests = [one for group in found.values() for one in group if "p" in one]
    adjusted = multiple_comparisons([1.0 if one["p"] is None else one["p"] for one in tests])
    assert [one["p_holm"] for one in tests] == [
        None if t["p"] is None else pytest.approx(a) for t, a in zip(tests, adjusted, strict=True)
    ]
    small = found["claims"][0]
    assert small["claim"] == "Completion helps landmarks: M_id beats M_d" and small["p"] < 0.05 < small["p_holm"]
    assert small["verdict"] == "undecided" and small["details"][0]["verdict"] == "holds"
    assert [one["verdict"] for one in found["claims"][1:3]] == ["holds", "holds"]


def test_claims_about_chosen_models(printed):
    found = claims.evaluate_claims(Results(printed, MANIFEST), (1,), ("M_i", "M_isd", "M*_i", "M*_isd"))
    named = {name: [one["claim"].split(": ")[-1] for one in group] for name, group in found.items()}
    assert named == {
        "claims": ["M_isd beats M_i", "M*_isd beats M_isd", "M*_isd beats M_i"],
        "controls": ["M*_i beats M_i", "M*_isd beats M*_i"],
    }
    # Three of five are scored; the least sure of them is corrected for all five at least once.
    assert [one["verdict"] for one in found["claims"]] == ["holds"] * 3


def multiple_comparisons(p_values):
    """Holm's procedure as it is written down: the k-th smallest of m is tested at level / (m - k + 1)."""
    found = []
    for p in p_values:
        # The smallest level at which this one is rejected: all smaller ones must be rejected before.
        order = sorted(p_values)
        found.append(max(min(1.0, order[k] * (len(order) - k)) for k in range(order.index(p) + 1)))
    return found


def test_few_seeds_widen_what_is_close_and_the_reduction(tmp_path):
    """Two seeds that agree within a third of the margin leave one degree of freedom: 12.7 standard errors, not 1.96."""
    generator = np.random.default_rng(12)
    base = generator.gamma(4, 0.6, (60, 5))
    base /= base.mean()
    for model, shifts in (("M*_isd", (0.0, 0.02)), ("M_isd", (0.0,)), ("M_d", (1.0, 1.5, 1.8))):
        for seed, shift in enumerate(shifts):
            write_points(run_of(tmp_path, model, seed), base + shift)
    runs = [run_of(tmp_path, m, s) for m, n in (("M*_isd", 2), ("M_isd", 1), ("M_d", 3)) for s in range(n)]
    found = evaluate(runs, 3)
    close = found["The scheme adds nothing to landmarks: M*_isd and M_isd are close"]
    detail = close["details"][0]
    assert detail["freedom"] == pytest.approx(1) and detail["se"] == pytest.approx(0.01)
    assert close["verdict"] == "undecided" and abs(detail["ours"]) + 1.96 * detail["se"] < 0.1

    (detail,) = found["The average landmark error falls by 27.7 % from M_d to M*_isd"]["details"]
    now, before = (np.array(shifts) + 1 for shifts in ((0.0, 0.02), (1.0, 1.5, 1.8)))
    drawn = [generator.normal(side.mean(), stats.sem(side), 100_000) for side in (now, before)]
    assert detail["sd_seeds"] == pytest.approx((100 * drawn[0] / drawn[1]).std(), rel=0.1)
    assert detail["se"] ** 2 == pytest.approx(detail["se_samples"] ** 2 + detail["sd_seeds"] ** 2)
    low, high = detail["interval"]
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, detail["freedom"]) * detail["se"])


def test_the_note_names_the_models_with_one_seed(tmp_path):
    runs = [run_of(tmp_path, "M_isd", seed) for seed in range(3)] + [run_of(tmp_path, "M_d")]
    for run in runs:
        write_points(run, np.ones((4, 5)))
    note = claims.seeds_note(Results(runs, MANIFEST), (3,))
    assert "M_isd (3)." in note and "not covered: M_d." in note
