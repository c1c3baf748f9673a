"""A sweep in a few sentences and cards: its state, and the best trial against the paper's λ of the same sweep."""

from __future__ import annotations

from collections import Counter

from collagan_dist.report import formatting
from collagan_dist.report.summary import Card
from collagan_dist.report.sweep_data import Confirmation, Metric, SeedScores, SweepData
from collagan_dist.report.trial_data import TrialData
from collagan_dist.units import format_duration

_STATES = {"done": "finished", "running": "still running", "interrupted": "interrupted: the same command continues it"}
_STATUS_ORDER = ("done", "stopped", "failed", "running", "paused", "waiting")
STATUS_LABELS = {"stopped": "stopped early"}
# What a trial did at its last number of samples; all others may still go on.
_VERBS = {"stopped": "were stopped at", "failed": "failed after"}
_SIGNIFICANCE_LEVEL = 0.05


def state(sweep: SweepData) -> str:
    """Return how far the sweep is: "still running · 12 of 16 trials ended"."""
    ended = formatting.format_number(sum(trial.status in ("done", "stopped", "failed") for trial in sweep.searched))
    # ASHA sweeps may grow: the plan is the newest one.
    planned = sweep.planned_trials
    of = f"{ended} of {formatting.format_number(planned)}" if planned else ended
    return " · ".join(filter(None, (_STATES.get(sweep.status, sweep.status), f"{of} trials ended")))


def headline(sweep: SweepData) -> str:
    """Return the result by the first metric: the best trial against the paper's λ, and whether other seeds confirm it."""
    best, paper, main = sweep.best_trial, sweep.paper_trial, sweep.main
    value = best.scores.get(main.name) if best else None
    # The best trial of an interrupted sweep may not have been evaluated yet.
    if best is None or value is None:
        return _no_result(sweep)
    label, count = formatting.label_in_sentence(main.name), _scored_trials(sweep)
    result = _with_error(main.name, value, best.errors.get(main.name))
    if paper is not None and best.number == paper.number:
        text = f"The paper's λ are the best of {count} by {label}: {result}."
    else:
        text = f"Trial {best.number} is the best of {count} by {label} ({result}): {_against_paper(sweep, best, value)}"
    if sweep.confirmed:
        text += " " + confirmation(sweep, sweep.confirmed)
    elif paper is not None and best.number != paper.number and sweep.repeats == 1:
        text += " One seed each, and the best of many trials is partly the luckiest: not confirmed over seeds."
    return text + _lead_sentence(sweep) + _constraints_sentence(sweep) + _front_sentence(sweep)


def _lead_sentence(sweep: SweepData) -> str:
    if sweep.repeats == 1:
        return ""
    text = f" Each is the mean of {sweep.repeats} seeds (± standard error)."
    if sweep.lead is None:
        return text
    name = sweep.main.name
    text += f" Trial {sweep.best} leads trial {sweep.lead.next}, the next, by {_with_error(name, sweep.lead.difference, sweep.lead.error)}"
    return f"{text}." if sweep.lead.clear else f"{text}, which may be the noise of seeds."


def _constraints_sentence(sweep: SweepData) -> str:
    if not sweep.constraints:
        return ""
    scored = [trial for trial in sweep.searched if trial.scores]
    broken = [sweep.broken(trial) for trial in scored if sweep.broken(trial)]
    if not broken:
        return " All trials keep the constraints."
    names = " or ".join(
        f"{formatting.label_in_sentence(name)} {bound} {formatting.metric_unit(name)}".strip()
        for name, bound in dict.fromkeys(pair for one in broken for pair in one.items())
    )
    verb = "breaks" if len(broken) == 1 else "break"
    return f" {len(broken)} of {len(scored)} trials {verb} a constraint ({names})."


def confirmation(sweep: SweepData, found: Confirmation) -> str:
    """Return the comparison of best and paper over seeds: mean ± sd each, p, and what follows from it."""
    best, paper = _mean_and_sd(found.metric, found.best), _mean_and_sd(found.metric, found.paper)
    subject = "" if found.metric == sweep.main.name else f"{formatting.label_in_sentence(found.metric)} "
    # A sweep that grew may have a newer best trial than the one that was confirmed.
    subject += f"trial {found.best.trial} has " if found.best.trial not in (None, sweep.best) else ""
    # Elsewhere on the page ± is a standard error.
    seeds = "1 seed each" if found.seeds == 1 else f"{found.seeds} seeds each (± sd)"
    text = f"Over {seeds}: {subject}{best} against {paper}"
    text += f" {formatting.metric_unit(found.metric)}".rstrip() + " for the paper's λ"
    if found.p is None:
        return f"{text}: too few seeds to tell the difference from chance."
    p = formatting.format_p(found.p)
    text += f" (p {p if p.startswith('<') else f'= {p}'}): "
    sign = next((m.sign for m in sweep.metrics if m.name == found.metric), formatting.better_sign(found.metric))
    if found.p >= _SIGNIFICANCE_LEVEL or found.difference == 0:
        return text + "the difference may be chance."
    return text + ("better beyond chance." if sign * found.difference > 0 else "worse beyond chance.")


def cards(sweep: SweepData) -> list[Card]:
    """Return the numbers to look at first: trials, effort, the best value of each metric."""
    counts = Counter(trial.status or "unknown" for trial in sweep.searched)
    order = [*_STATUS_ORDER, *(status for status in counts if status not in _STATUS_ORDER)]
    notes = [f"{counts[status]} {STATUS_LABELS.get(status, status)}" for status in order if counts[status]]
    repeated = len(sweep.trials) - len(sweep.searched)
    notes += [f"each with {sweep.repeats} seeds"] if sweep.repeats > 1 else []
    notes += [f"and {repeated} over other seeds"] if repeated else []
    found = [Card("Trials", formatting.format_number(len(sweep.searched)), ", ".join(notes))]
    if sweep.samples_trained is not None:
        found.append(Card("Samples trained", formatting.format_number(sweep.samples_trained), _share_trained(sweep)))
    if sweep.seconds is not None:
        found.append(Card("Time", format_duration(sweep.seconds)))
    return found + [card for metric in sweep.metrics if (card := _best_card(sweep, metric)) is not None]


def _no_result(sweep: SweepData) -> str:
    failed = sum(trial.status == "failed" for trial in sweep.searched)
    if not sweep.trials:
        return "No trial has started yet."
    if failed == len(sweep.searched):
        return "Every trial failed; the reasons are below."
    if sweep.best is None and sweep.constraints and any(map(sweep.broken, sweep.searched)):
        return f"No trial keeps the constraints.{_constraints_sentence(sweep)}"
    if sweep.front:
        return _front_sentence(sweep).strip()
    return "No trial has a result to compare yet."


def _scored_trials(sweep: SweepData) -> str:
    scored = sum(sweep.main.name in trial.scores for trial in sweep.searched)
    return f"{formatting.format_number(scored)} trial{'' if scored == 1 else 's'}"


def _against_paper(sweep: SweepData, best: TrialData, value: float) -> str:
    name, paper = sweep.main.name, sweep.paper_trial
    rival = paper.scores.get(name) if paper else None
    if paper is None or rival is None:
        return "there is nothing to compare it with, as the paper's λ have no value in this sweep."
    # Compared at the same number of samples: the trial that trained longer would win by that alone.
    if paper.samples is not None and best.samples is not None and paper.samples < best.samples:
        same_length, verb = best.at(name, paper.samples), _VERBS.get(paper.status, "are at")
        text = f"the paper's λ {verb} {formatting.format_number(paper.samples)} samples with {formatting.format_metric(name, rival, True)}"
        return text + (f"; there it {_compare(sweep.main, same_length, rival)}." if same_length is not None else ".")
    return f"it {_compare(sweep.main, value, rival)} ({formatting.format_metric(name, rival, True)})."


def _compare(metric: Metric, value: float, rival: float) -> str:
    gain = metric.sign * (value - rival)
    if gain <= 0:
        return "is no better than the paper's λ"
    # As an error is written, so that a small gain is "< 0.01" and not "0.00".
    size = formatting.format_error(metric.name, gain).removeprefix("± ")
    return f"beats the paper's λ by {size} {formatting.metric_unit(metric.name)}".rstrip()


def _front_sentence(sweep: SweepData) -> str:
    if len(sweep.metrics) < 2 or not sweep.front:
        return ""
    names = ", ".join(formatting.label_in_sentence(metric.name) for metric in sweep.metrics)
    if len(sweep.front) == 1:
        return f" Trial {sweep.front[0]} alone is Pareto-optimal ({names})."
    return f" {len(sweep.front)} trials are Pareto-optimal ({names})."


def _mean_and_sd(name: str, scores: SeedScores) -> str:
    sd = "" if scores.sd is None else f" ± {formatting.format_metric(name, scores.sd)}"
    return formatting.format_metric(name, scores.mean) + sd


def _with_error(name: str, value: float, error: float | None) -> str:
    """Return "21.30 ± 0.04 dB"."""
    words = (formatting.format_metric(name, value), formatting.format_error(name, error), formatting.metric_unit(name))
    return " ".join(filter(None, words))


def _share_trained(sweep: SweepData) -> str:
    """Return which share of full-length runs of all trials was trained."""
    if not sweep.rungs or not sweep.trials or not sweep.samples_trained:
        return ""
    # Close to all is shown as nothing saved.
    runs = sweep.repeats * len(sweep.searched) + len(sweep.trials) - len(sweep.searched)
    share = sweep.samples_trained / (sweep.rungs[-1] * runs)
    return f"{share:.0%} of full-length runs of all trials" if share < 0.995 else ""


def _best_card(sweep: SweepData, metric: Metric) -> Card | None:
    best, paper = sweep.trial(sweep.best_number(metric.name)), sweep.paper_trial
    if best is None or metric.name not in best.scores:
        return None
    notes = [
        *filter(None, [formatting.format_error(metric.name, best.errors.get(metric.name))]),
        f"trial {best.number}",
    ]
    if paper is not None and metric.name in paper.scores:
        length = (
            f" after {formatting.format_number(paper.samples or 0)} samples" if not sweep.is_full_length(paper) else ""
        )
        notes.append(f"the paper's λ {formatting.format_metric(metric.name, paper.scores[metric.name])}{length}")
    value = formatting.format_metric(metric.name, best.scores[metric.name], True)
    return Card(f"Best {formatting.label_in_sentence(metric.name)}", value, " · ".join(notes))
