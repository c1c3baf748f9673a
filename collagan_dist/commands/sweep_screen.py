"""Progress of a sweep on stderr: a live table of its trials on a terminal, lines in a log."""

from __future__ import annotations

import sys
import time
from itertools import accumulate
from types import TracebackType
from typing import TYPE_CHECKING, Any

from collagan_dist.units import format_duration

if TYPE_CHECKING:
    from collagan_dist.sweep.driver import SweepController
    from collagan_dist.sweep.trial import Trial

_REFRESH_SECONDS = 2.0  # each refresh reads the metrics of all running trials
_LOG_SECONDS = 30.0  # between lines in a log
_MAX_ROWS = 12  # of the table


class Screen:
    """The progress of a sweep; `show` may be called at any rate."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(file=sys.stderr)
        self._live: Any = None
        self._last_refresh = self._last_log = -_LOG_SECONDS
        self._last_line = ""
        self._messages_shown = 0

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, sweep: SweepController) -> None:
        """Print new messages of the sweep, and its state if that is due."""
        now = time.monotonic()
        news, self._messages_shown = sweep.messages[self._messages_shown :], len(sweep.messages)
        for text in news:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)
        # Messages are shown at once.
        if now - self._last_refresh < _REFRESH_SECONDS and not news:
            return
        self._last_refresh = now
        if self.console.is_terminal:
            from rich.live import Live

            if self._live is None:
                self._live = Live(console=self.console, auto_refresh=False)
                self._live.start()
            self._live.update(_table(sweep, self.console.width), refresh=True)
            return
        line = headline(sweep)
        # A log keeps every line, so a line that says nothing new is left out.
        if (now - self._last_log >= _LOG_SECONDS or news) and line != self._last_line:
            self._last_log, self._last_line = now, line
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)


def headline(sweep: SweepController) -> str:
    """Return how far a sweep is, its best trial beside the paper's λ, and when it will be done."""
    from collagan_dist.sweep import results, schedule
    from collagan_dist.sweep.configurations import configurations

    plan, trials = sweep.plan, sweep.trials
    states = [_status(sweep, trial) for trial in trials]
    counts = [
        f"{states.count(state)} {state}{' for room' if state == 'waiting' and sweep.waiting else ''}"
        for state in ("done", "running", "waiting", "paused", "stopped", "failed")
        if states.count(state)
    ]
    again = 2 * plan.confirm if any(trial.role == "confirm" for trial in trials) else 0
    planned = plan.trials * plan.repeats + again
    parts = [f"{len(trials)} of {planned} trials begun: {', '.join(counts) or 'none runs yet'}"]
    # As decisions rest on them: the means of seeds, of which single ones may be beyond a bound.
    breaking = sum(bool(plan.broken(one, one.reached)) for one in configurations(trials, plan.repeats))
    means = f" (means of {plan.repeats} seeds)" if plan.repeats > 1 else ""
    parts += [f"{breaking} break{'s' if breaking == 1 else ''} a constraint{means}"] if breaking else []
    best = schedule.best_trial(plan, trials)
    if best is not None:
        at = plan.last_rung(best)
        score = results.score_text(plan, trials, best)
        parts.append(f"best: trial {best.number}, {plan.metric} {score} after {at:,} samples")
        paper = schedule.paper_trial(plan, trials)
        if paper is not None and paper.number != best.number and paper.metrics_at(at):
            # At the same number of samples: the paper's trial may have trained longer.
            parts[-1] += f" (the paper's λ: {_number(paper, at, plan.metric)})"
        if found := results.lead(plan, trials):
            parts.append(results.lead_text(found))
    elif breaking:
        parts.append("best: none keeps the constraints")
    if sweep.waiting_reason:
        parts.append(f"waits for room: {sweep.waiting_reason}")
    elif (left := _left(sweep)) is not None:
        parts.append(f"ETA {left}")
    return "; ".join(parts)


def _table(sweep: SweepController, width: int) -> Any:
    """Return the trials as a table of at most `width` columns, and the headline."""
    from rich.console import Group
    from rich.text import Text

    from collagan_dist.commands.tables import new_table
    from collagan_dist.report.sweep_data import short_labels
    from collagan_dist.runs.metrics_log import last_train_step
    from collagan_dist.sweep.trial import trial_dir

    plan = sweep.plan
    keys = short_labels(list(plan.space.keys))
    title = f"{sweep.prepared.options.out}: {plan.space.spec.search}, {plan.space.spec.scheduler}"
    # The metric that decides is the first.
    rows = [["trial", "status", "step", *plan.needed, *keys.values()]]
    for trial in _chosen(sweep):
        step = last_train_step(trial_dir(sweep.out, trial)) if trial.running else trial.steps(trial.reached)
        # "!" is what fits beside a number; the headline says how many break a constraint.
        broken = {name.split()[0] for name in plan.broken(trial, trial.reached)}
        scores = [_number(trial, trial.reached, name) + "!" * (name in broken) for name in plan.needed]
        words = [str(trial.number), *([trial.role] if trial.role in ("paper", "confirm") else [])]
        label = " ".join([*words, *([f"seed {trial.seed}"] if plan.repeats > 1 else [])])
        values = [_value(trial.values[key]) for key in keys]
        rows.append([label, _status(sweep, trial), f"{step}/{trial.steps(plan.total)}", *scores, *values])
    shown = _fitting(rows, width)
    table = new_table(title, rows[0][:shown], left=("status",))
    for row in rows[1:]:
        table.add_row(*row[:shown])
    left_out = ", ".join(rows[0][shown:])
    return Group(table, *[Text(f"in trials.csv alone: {left_out}")] * bool(left_out), Text(headline(sweep)))


def _status(sweep: SweepController, trial: Trial) -> str:
    """Return the status of a trial; "waiting" where its segment was handed to Ray and has no place yet."""
    from collagan_dist.sweep import results

    status = results.trial_status(sweep.plan.total, trial, sweep.finished)
    return "waiting" if status == "running" and trial.number in sweep.waiting else status


def _fitting(rows: list[list[str]], width: int) -> int:
    """Return how many of the first columns fit the screen; at least the trial, its status, its step and one metric."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    # Beside its text a column has a blank and a divider, the table a blank at either end.
    return max(4, sum(total <= width for total in accumulate((one + 2 for one in widths), initial=2)) - 1)


def _chosen(sweep: SweepController) -> list[Trial]:
    """Return the running trials and the best of the others, as many as a screen holds; longest and best first."""
    plan = sweep.plan
    lengths = sorted({trial.reached for trial in sweep.trials}, reverse=True)
    ranked = [one for at in lengths for one in plan.ranked([t for t in sweep.trials if t.reached == at], at)]
    shown = {trial.number for trial in sorted(ranked, key=lambda trial: not trial.running)[:_MAX_ROWS]}
    return [trial for trial in ranked if trial.number in shown]


def _left(sweep: SweepController) -> str | None:
    """Return the time that is left at the rate of this start; None while that is unknown."""
    from collagan_dist.runs.metrics_log import last_train_step
    from collagan_dist.sweep import schedule
    from collagan_dist.sweep.trial import saved_step, trial_dir

    plan = sweep.plan
    running = [trial for trial in sweep.trials if trial.running]
    done = sum(
        max(saved_step(sweep.out, t), last_train_step(trial_dir(sweep.out, t)) if t.running else 0) * t.batch
        for t in sweep.trials
    )
    # Samples of earlier starts are no part of this start's rate.
    pace = (done - sweep.samples_before) / max(time.monotonic() - sweep.started_at, 1e-9)
    left = schedule.expected_samples(plan) + 2 * plan.confirm * plan.total - done
    if pace <= 0 or left <= 0 or not running:
        return None
    return format_duration(left / pace)


def _number(trial: Trial, samples: int, metric: str) -> str:
    value = (trial.metrics_at(samples) or {}).get(metric)
    return "" if value is None else f"{value:.4g}"


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
