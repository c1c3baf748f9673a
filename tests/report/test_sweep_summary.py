"""The headline of a sweep: nothing is claimed that its trials do not show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from collagan_dist.report.sweep_data import Confirmation, Metric, SeedScores, SweepData, read_sweep
from collagan_dist.report.sweep_summary import best_full_length, headline, state
from collagan_dist.report.trial_data import TrialData
from tests.report.page_reader import Page
from tests.report.simulated_sweep import SimulatedSweep

FULL, RUNG = 216, 24


@pytest.fixture
def sweep(asha: SimulatedSweep) -> SweepData:
    return read_sweep(asha.out)


def trial(number: int, value: float | None, metric: str = "psnr_hole", samples: int = FULL, **more: Any) -> TrialData:
    role, scores = "paper" if number == 0 else "search", {} if value is None else {metric: value}
    fields = {"number": number, "status": "done", "role": role, "values": {}, "scores": scores, "samples": samples}
    return TrialData(**{**fields, **more})


def claim(sweep: SweepData, *trials: TrialData, best: int | None = 1, **more: Any) -> str:
    return headline(replace(sweep, trials=trials, best=best, **{"confirmed": None, **more}))


def test_headline_and_cards_of_a_sweep(asha_page: Page, sweep: SweepData) -> None:
    best, paper, text = sweep.best_trial, sweep.paper_trial, asha_page.text
    assert best is not None and paper is not None and sweep.confirmed is not None and sweep.confirmed.p is not None
    value, there = best.scores["psnr_hole"], best.at("psnr_hole", RUNG)
    assert f"Trial {best.number} is the best of 38 trials by PSNR in the hole ({value:.2f} dB)" in text
    gain = (there or 0) - paper.scores["psnr_hole"]
    assert f"were stopped at 24 samples with {paper.scores['psnr_hole']:.2f} dB; there it beats the paper's λ by {gain:.2f} dB." in text  # fmt: skip
    sides = [f"{side.mean:.2f} ± {side.sd:.2f}" for side in (sweep.confirmed.best, sweep.confirmed.paper)]
    assert f"Over 2 seeds each: {sides[0]} against {sides[1]} dB for the paper's λ" in text
    assert "finished · 40 of 40 trials ended" in text and "small, M*_isd, 32x32 pixels" in text
    counts = {status: sum(one.status == status for one in sweep.searched) for status in ("done", "stopped")}
    assert f"{counts['done']} done, {counts['stopped']} stopped early, 2 failed, and 4 over other seeds" in text
    trained = sum(one.samples or 0 for one in sweep.trials)
    assert f"Samples trained {trained:,} {trained / (44 * FULL):.0%} of full-length runs" in text
    assert "Time 13.5 min" in text and f"Best PSNR in the hole {value:.2f} dB trial {best.number}" in text


def test_the_front_is_named(nsga2_page: Page, nsga2: SimulatedSweep) -> None:
    count = len(read_sweep(nsga2.out).front)
    assert count > 1 and f"{count} trials are Pareto-optimal (PSNR in the hole, Dice, landmark error)." in nsga2_page.text  # fmt: skip


def test_the_best_is_compared_with_the_paper(sweep: SweepData) -> None:
    paper = trial(0, 18.5)
    text = claim(sweep, paper, trial(1, 18.92))
    assert "it beats the paper's λ by 0.42 dB (18.50 dB)." in text and text.endswith("not confirmed over seeds.")
    assert "it is no better than the paper's λ (18.50 dB)" in claim(sweep, paper, trial(1, 18.5))
    assert "beats the paper's λ by < 0.01 dB" in claim(sweep, paper, trial(1, 18.501))
    assert claim(sweep, paper, trial(1, 18.3), best=0) == "The paper's λ are the best of 2 trials by PSNR in the hole: 18.50 dB."  # fmt: skip
    assert "there is nothing to compare it with" in claim(sweep, trial(1, 18.3))
    smaller = claim(
        sweep, trial(0, 2.5, "landmark_error"), trial(1, 2.0, "landmark_error"), metrics=(Metric("landmark_error", -1),)
    )
    assert "by landmark error (2.00 px): it beats the paper's λ by 0.50 px (2.50 px)" in smaller


@pytest.mark.parametrize(
    ("at_rung", "words"),
    [
        (None, "with 16.00 dB. One seed"),
        (15.5, "; there it is no better than the paper's λ."),
        (16.3, "; there it beats the paper's λ by 0.30 dB."),
    ],
)
def test_a_paper_that_was_stopped_is_compared_at_its_own_length(
    sweep: SweepData, at_rung: float | None, words: str
) -> None:
    curve = ((FULL, 18.9),) if at_rung is None else ((RUNG, at_rung), (FULL, 18.9))
    paper = trial(0, 16.0, samples=RUNG, status="stopped")
    text = claim(sweep, paper, trial(1, 18.9, curves={"psnr_hole": curve}))
    assert "the paper's λ were stopped at 24 samples with 16.00 dB" in text and words in text


@pytest.mark.parametrize(
    ("difference", "p", "words"),
    [
        (0.15, 0.2, "(p = 0.2): the difference may be chance."),
        (0.15, 0.03, "(p = 0.03): better beyond chance."),
        (-0.15, 0.0002, "(p < 0.001): worse beyond chance."),
        (0.15, None, "too few seeds to tell the difference from chance."),
    ],
)
def test_confirmation_over_seeds(sweep: SweepData, difference: float, p: float | None, words: str) -> None:
    sides = SeedScores((18.63, 18.87), 18.75, 0.12), SeedScores((18.8, 19.0), 18.9, 0.1)
    found = Confirmation(2, "psnr_hole", *sides, 1, difference, p)
    text = claim(sweep, trial(0, 18.5), trial(1, 18.92), confirmed=found)
    assert "Over 2 seeds each: 18.90 ± 0.10 against 18.75 ± 0.12 dB for the paper's λ" in text
    assert text.endswith(words) and "luckiest" not in text


def test_a_stopped_trial_is_best_at_nothing(sweep: SweepData) -> None:
    trials = (trial(0, 18.0), trial(1, 17.0), trial(2, 19.0, samples=RUNG, status="stopped"))
    assert best_full_length(replace(sweep, trials=trials), "psnr_hole") == 0


def test_sweeps_without_a_result(sweep: SweepData) -> None:
    failed = [trial(n, None, status="failed") for n in range(3)]
    assert claim(sweep, best=None) == "No trial has started yet."
    assert claim(sweep, *failed, best=None) == "Every trial failed; the reasons are below."
    assert claim(sweep, *failed, trial(3, None), best=None) == "No trial has a result to compare yet."
    running = replace(sweep, status="running", trials=(trial(0, 1.0), trial(1, None, status="waiting")))
    assert state(running) == "still running · 1 of 40 trials ended"
