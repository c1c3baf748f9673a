from dataclasses import replace

import pytest

from collagan_dist.report.sweep_data import Confirmation, Metric, SeedScores
from collagan_dist.report.sweep_summary import headline, state
from collagan_dist.report.trial_data import TrialData

FULL, RUNG = 216, 24


def trial(number, value, metric="psnr_hole", samples=FULL, status="done", **more) -> TrialData:
    role, scores = "paper" if number == 0 else "search", {} if value is None else {metric: value}
    return TrialData(number, status, role, {}, scores, samples=samples, **more)


def claim(sweep, *trials, best=1, **more) -> str:
    return headline(replace(sweep, trials=trials, best=best, **{"confirmed": None, **more}))


def test_headline_and_cards_of_a_sweep(asha_page, asha_data):
    best, confirmed = asha_data.best_trial, asha_data.confirmed
    value, rival = best.scores["psnr_hole"], asha_data.paper_trial.scores["psnr_hole"]
    gain = best.at("psnr_hole", RUNG) - rival
    sides = " against ".join(f"{side.mean:.2f} ± {side.sd:.2f}" for side in (confirmed.best, confirmed.paper))
    done, stopped = (sum(one.status == status for one in asha_data.searched) for status in ("done", "stopped"))
    trained = sum(one.samples or 0 for one in asha_data.trials)
    for words in (
        f"Trial {best.number} is the best of 38 trials by PSNR in the hole ({value:.2f} dB)",
        f"were stopped at 24 samples with {rival:.2f} dB; there it beats the paper's λ by {gain:.2f} dB.",
        f"Over 2 seeds each (± sd): {sides} dB for the paper's λ",
        "finished · 40 of 40 trials ended",
        "small, M*_isd, 32x32 pixels",
        f"{done} done, {stopped} stopped early, 2 failed, and 4 over other seeds",
        f"Samples trained {trained:,} {trained / (44 * FULL):.0%} of full-length runs",
        f"Best PSNR in the hole {value:.2f} dB trial {best.number} · the paper's λ {rival:.2f} after 24 samples",
        "Time 13.5 min",
    ):
        assert words in asha_page.text


def test_the_front_is_named(nsga2_page, nsga2_data):
    assert (
        f"{len(nsga2_data.front)} trials are Pareto-optimal (PSNR in the hole, Dice, landmark error)."
        in nsga2_page.text
    )


PAPER, STOPPED = trial(0, 18.5), trial(0, 16.0, samples=RUNG, status="stopped")


def longer(*curve) -> TrialData:
    return trial(1, 18.9, curves={"psnr_hole": curve})


@pytest.mark.parametrize(
    ("trials", "words"),
    [
        ((PAPER, trial(1, 18.92)), "it beats the paper's λ by 0.42 dB (18.50 dB). One seed"),
        ((PAPER, trial(1, 18.5)), "it is no better than the paper's λ (18.50 dB)"),
        ((PAPER, trial(1, 18.501)), "beats the paper's λ by < 0.01 dB"),
        ((trial(1, 18.3),), "there is nothing to compare it with"),
        ((STOPPED, longer((FULL, 18.9))), "the paper's λ were stopped at 24 samples with 16.00 dB. One seed"),
        ((STOPPED, longer((RUNG, 15.5), (FULL, 18.9))), "16.00 dB; there it is no better than the paper's λ."),
        ((STOPPED, longer((RUNG, 16.3), (FULL, 18.9))), "16.00 dB; there it beats the paper's λ by 0.30 dB."),
    ],
)
def test_the_best_is_compared_with_the_paper(asha_data, trials, words):
    assert words in claim(asha_data, *trials)


@pytest.mark.parametrize(("status", "words"), [("running", "are at"), ("paused", "are at"), ("failed", "failed after")])
def test_only_a_stopped_trial_was_stopped(asha_data, status, words):
    assert f"the paper's λ {words} 24 samples with" in claim(asha_data, replace(STOPPED, status=status), longer())


def test_the_paper_may_be_best_and_smaller_may_be_better(asha_data):
    text = claim(asha_data, PAPER, trial(1, 18.3), best=0)
    assert text == "The paper's λ are the best of 2 trials by PSNR in the hole: 18.50 dB."
    trials = [trial(number, error, "landmark_error") for number, error in enumerate((2.5, 2.0))]
    text = claim(asha_data, *trials, metrics=(Metric("landmark_error", "min"),))
    assert "by landmark error (2.00 px): it beats the paper's λ by 0.50 px (2.50 px)" in text


@pytest.mark.parametrize(
    ("difference", "p", "words"),
    [
        (0.15, 0.2, " (p = 0.2): the difference may be chance."),
        (0.15, 0.03, " (p = 0.03): better beyond chance."),
        (-0.15, 0.0002, " (p < 0.001): worse beyond chance."),
        (0.15, None, ": too few seeds to tell the difference from chance."),
    ],
)
def test_confirmation_over_seeds(asha_data, difference, p, words):
    paper, best = SeedScores(mean=18.75, sd=0.12), SeedScores(mean=18.9, sd=0.1, trial=1)
    found = Confirmation(seeds=2, metric="psnr_hole", paper=paper, best=best, difference=difference, p=p)
    text = claim(asha_data, PAPER, trial(1, 18.92), confirmed=found)
    assert text.endswith(f" Over 2 seeds each (± sd): 18.90 ± 0.10 against 18.75 ± 0.12 dB for the paper's λ{words}")


def test_a_stopped_trial_is_best_at_nothing(asha_data):
    trials = (trial(0, 18.0), trial(1, 17.0), trial(2, 19.0, samples=RUNG, status="stopped"))
    assert replace(asha_data, trials=trials, best=None).best_number("psnr_hole") == 0


def test_sweeps_without_a_result(asha_data):
    failed = [trial(n, None, status="failed") for n in range(3)]
    assert claim(asha_data, best=None) == "No trial has started yet."
    assert claim(asha_data, *failed, best=None) == "Every trial failed; the reasons are below."
    assert claim(asha_data, *failed, trial(3, None), best=None) == "No trial has a result to compare yet."
    running = replace(asha_data, status="running", trials=(trial(0, 1.0), trial(1, None, status="waiting")))
    assert state(running) == "still running · 1 of 40 trials ended"
