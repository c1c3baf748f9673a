"""A sweep in words, cards and tables: what came of it, against the paper's λ in the same sweep."""

from __future__ import annotations

import shlex
from collections import Counter

from collagan_dist.report import formatting
from collagan_dist.report.evaluation import is_number
from collagan_dist.report.summary import Card
from collagan_dist.report.sweep_data import Confirmed, Key, Metric, Side, SweepData
from collagan_dist.report.tables import Cell, Table
from collagan_dist.report.trial_data import TrialData, Value
from collagan_dist.units import format_duration

_STATES = {"done": "finished", "running": "still running", "interrupted": "interrupted: the same command continues it"}
_ORDER = ("done", "stopped", "failed", "running", "paused", "waiting")
_STATUSES = {"stopped": "stopped early"}
_SCHEDULERS = {
    "asha": "ASHA: at each rung the better part goes on, without waiting for the others",
    "sync_halving": "successive halving: all wait at a rung, the better part goes on",
    "pbt": "population based training: at each generation the worse copy the better and vary their keys",
    "none": "none: every trial is a whole run",
}
_SEARCHES = {
    "random": "random",
    "grid": "grid",
    "tpe": "TPE: tries where earlier trials were good",
    "nsga2": "NSGA-II: breeds from the Pareto front",
}
# A difference over seeds that chance does not explain.
_SIGNIFICANT = 0.05


def state(sweep: SweepData) -> str:
    """How far it is: "still running · 12 of 16 trials ended"."""
    ended = sum(trial.status in ("done", "stopped", "failed") for trial in sweep.searched)
    of = f"{formatting.number(ended)} of {formatting.number(sweep.asked)}" if sweep.asked else formatting.number(ended)
    return " · ".join(filter(None, (_STATES.get(sweep.status, sweep.status), f"{of} trials ended")))


def headline(sweep: SweepData) -> str:
    """The result by the first metric: the best trial against the paper's λ, then what became of it over seeds."""
    best, paper, main = sweep.best_trial, sweep.paper_trial, sweep.main
    value = best.scores.get(main.name) if best else None
    if best is None or value is None:
        return _nothing(sweep)
    label = _inside(main.name)
    if paper is not None and best.number == paper.number:
        text = f"The paper's λ are the best of {_count(sweep)} by {label}: {formatting.metric(main.name, value, True)}."
    else:
        text = f"Trial {best.number} is the best of {_count(sweep)} by {label} ({formatting.metric(main.name, value, True)}): "
        text += _against(sweep, best, value, paper)
    if sweep.confirmed:
        text += " " + confirmation(sweep, sweep.confirmed)
    elif paper is not None and best.number != paper.number:
        text += " One seed each, and the best of many is partly the luckiest: not confirmed over seeds."
    return text + _front(sweep)


def confirmation(sweep: SweepData, found: Confirmed) -> str:
    """Best against paper over seeds: mean ± sd each, p, and what may be concluded."""
    mine, theirs = _mean(found.metric, found.best), _mean(found.metric, found.paper)
    what = "" if found.metric == sweep.main.name else f"{_inside(found.metric)} "
    what += f"trial {found.trial} has " if found.trial not in (None, sweep.best) else ""
    text = f"Over {found.seeds} seed{'' if found.seeds == 1 else 's'} each: {what}{mine} against {theirs}"
    text += f" {formatting.unit(found.metric)}".rstrip()
    sign = next((m.sign for m in sweep.metrics if m.name == found.metric), formatting.better(found.metric))
    if found.p is None:
        return f"{text} for the paper's λ: too few seeds to tell it from chance."
    text += f" for the paper's λ (p {_p(found.p)}): "
    if found.p >= _SIGNIFICANT or found.difference == 0:
        return text + "not told apart from chance."
    return text + ("better beyond chance." if sign * found.difference > 0 else "worse beyond chance.")


def cards(sweep: SweepData) -> list[Card]:
    """Trials, effort, best value."""
    counts = Counter(trial.status or "unknown" for trial in sweep.searched)
    known = [*_ORDER, *(status for status in counts if status not in _ORDER)]
    said = [f"{counts[status]} {_STATUSES.get(status, status)}" for status in known if counts[status]]
    repeated = len(sweep.trials) - len(sweep.searched)
    said += [f"and {repeated} over other seeds"] if repeated else []
    found = [Card("Trials", formatting.number(len(sweep.searched)), ", ".join(said))]
    if sweep.samples_trained is not None:
        found.append(Card("Samples trained", formatting.number(sweep.samples_trained), _saved(sweep)))
    if sweep.seconds is not None:
        found.append(Card("Time", format_duration(sweep.seconds)))
    for metric in sweep.metrics:
        best, paper = _best_by(sweep, metric), sweep.paper_trial
        if best is None:
            continue
        notes = [f"trial {best.number}"]
        if paper is not None and metric.name in paper.scores:
            notes.append(f"the paper's λ {formatting.metric(metric.name, paper.scores[metric.name])}")
        value = formatting.metric(metric.name, best.scores[metric.name], True)
        found.append(Card(f"Best {_inside(metric.name)}", value, " · ".join(notes)))
    return found


def best_table(sweep: SweepData) -> Table | None:
    """The best trial's keys and metrics beside those of the paper's λ, and what was searched."""
    best, paper = sweep.best_trial, sweep.paper_trial
    named = [trial for trial in (best, paper) if trial is not None]
    if not sweep.keys or not named or named[0].role == "paper":
        return None
    rows = []
    for key in sweep.keys:
        cells = [Cell(_text(trial.values.get(key.name))) for trial in named]
        rows.append((key.label, (*cells, *([] if paper else [Cell(_text(key.paper))]), Cell(_range(key)))))
    for name in sweep.columns:
        scores = [trial.scores.get(name) for trial in named]
        if any(value is not None for value in scores):
            cells = [Cell(formatting.metric(name, value)) for value in scores]
            rows.append((_column(name), (*cells, *([] if paper else [Cell("")]), Cell(""))))
    titles = [f"Trial {trial.number}" if trial.role != "paper" else "The paper's λ" for trial in named]
    titles += [] if paper else ["The paper's λ"]
    return Table("The best trial and the paper's λ", ("", *titles, "Searched"), tuple(rows))


def command(sweep: SweepData) -> str:
    """The best trial's keys as options of `collagan train`; empty without one."""
    found = sweep.best_trial.values if sweep.best_trial else {}
    pairs = [(key.name, value) for key in sweep.keys if (value := found.get(key.name)) is not None]
    return " ".join(f"--set {shlex.quote(f'{name}={_exact(value)}')}" for name, value in pairs)


def importance(sweep: SweepData) -> list[tuple[str, list[tuple[str, float]]]]:
    """For each metric the keys with their shares, in the order of the first metric: the most important first."""
    named = [metric for metric in sweep.metrics if metric.name in sweep.importance]
    if not named:
        return []
    first = sweep.importance[named[0].name]
    keys = sorted(sweep.keys, key=lambda key: -first.get(key.name, 0.0))
    shares = [(metric, sweep.importance[metric.name]) for metric in named]
    return [
        (formatting.metric_label(metric.name), [(key.label, by[key.name]) for key in keys if key.name in by])
        for metric, by in shares
    ]


def trials_table(sweep: SweepData) -> Table:
    """Every trial; the best whole run of each metric is marked."""
    columns = [name for name in sweep.columns if any(name in trial.scores for trial in sweep.trials)]
    best = {name: _best_number(sweep, name) for name in columns}
    reasons = any(trial.reason for trial in sweep.trials)
    rows = []
    for trial in sweep.trials:
        cells = [Cell(_role(sweep, trial)), Cell(_STATUSES.get(trial.status, trial.status) or formatting.MISSING)]
        cells += [Cell(formatting.MISSING if n is None else formatting.number(n)) for n in (trial.steps, trial.samples)]
        cells += [Cell(_text(trial.values.get(key.name))) for key in sweep.keys]
        cells += [
            Cell(formatting.metric(name, trial.scores.get(name)), best=best[name] == trial.number) for name in columns
        ]
        rows.append((str(trial.number), (*cells, *([Cell(trial.reason)] if reasons else []))))
    titles = ("Trial", "Role", "Status", "Steps", "Samples", *(key.label for key in sweep.keys), *map(_column, columns))
    note = "Metrics are those at the trial's samples. The best whole run of each metric is bold and marked ★."
    return Table("Trials", titles + (("Reason",) if reasons else ()), tuple(rows), note)


def failed_table(sweep: SweepData) -> Table | None:
    failed = [trial for trial in sweep.trials if trial.status == "failed"]
    rows = tuple(
        (
            str(trial.number),
            (
                Cell(formatting.MISSING if trial.steps is None else formatting.number(trial.steps)),
                Cell(formatting.MISSING if trial.restarts is None else formatting.number(trial.restarts)),
                Cell(trial.reason or "no reason was recorded"),
            ),
        )
        for trial in failed
    )
    return Table("Failed trials", ("Trial", "Steps", "Restarts", "Reason"), rows, numeric=False) if rows else None


def settings_table(sweep: SweepData) -> Table:
    metrics = ", ".join(f"{metric.name} ({'larger' if metric.sign > 0 else 'smaller'} is better)" for metric in sweep.metrics)  # fmt: skip
    generations = sweep.scheduler == "pbt"
    rows = [
        ("scheduler", _SCHEDULERS.get(sweep.scheduler, sweep.scheduler)),
        ("search", _SEARCHES.get(sweep.search, sweep.search)),
        ("metrics", metrics),
        ("trials asked for", formatting.plain(sweep.asked)),
        (
            "generations, in samples" if generations else "rungs, in samples",
            " · ".join(map(formatting.number, sweep.rungs)) or "none",
        ),
        ("seed", formatting.plain(sweep.seed)),
    ]
    return Table("How it was searched", ("Key", "Value"), tuple((k, (Cell(v),)) for k, v in rows), numeric=False)


def space_table(sweep: SweepData) -> Table:
    rows = tuple((key.name, (Cell(_range(key)), Cell(_text(key.paper)))) for key in sweep.keys)
    return Table("What was searched", ("Key", "Space", "The paper's"), rows, numeric=False)


def _nothing(sweep: SweepData) -> str:
    counts = Counter(trial.status for trial in sweep.searched)
    if not sweep.trials:
        return "No trial has started yet."
    if counts["failed"] == len(sweep.searched):
        return "Every trial failed; the reasons are below."
    if sweep.front:
        return _front(sweep).strip()
    return "No trial has a result to compare yet."


def _count(sweep: SweepData) -> str:
    scored = sum(sweep.main.name in trial.scores for trial in sweep.searched)
    return f"{formatting.number(scored)} trial{'' if scored == 1 else 's'}"


def _against(sweep: SweepData, best: TrialData, value: float, paper: TrialData | None) -> str:
    """Compared where both were evaluated: whoever trained longer would win by that alone."""
    name = sweep.main.name
    rival = paper.scores.get(name) if paper else None
    if paper is None or rival is None:
        return "nothing to hold it against, as the paper's λ have no value in this sweep."
    if paper.samples is not None and best.samples is not None and paper.samples < best.samples:
        where, mine = f"at {formatting.number(paper.samples)} samples", best.at(name, paper.samples)
        text = f"the paper's λ were stopped {where} with {formatting.metric(name, rival, True)}"
        return text + (f"; there it {_verb(sweep.main, mine, rival)}." if mine is not None else ".")
    return f"it {_verb(sweep.main, value, rival)} ({formatting.metric(name, rival, True)})."


def _verb(metric: Metric, value: float, rival: float) -> str:
    gain = metric.sign * (value - rival)
    if gain <= 0:
        return "is no better than the paper's λ"
    size = formatting.spread(metric.name, gain).removeprefix("± ")
    return f"beats the paper's λ by {size} {formatting.unit(metric.name)}".rstrip()


def _front(sweep: SweepData) -> str:
    if len(sweep.metrics) < 2 or not sweep.front:
        return ""
    names = ", ".join(_inside(metric.name) for metric in sweep.metrics)
    if len(sweep.front) == 1:
        return f" Trial {sweep.front[0]} alone is Pareto-optimal ({names})."
    return f" {len(sweep.front)} trials are Pareto-optimal ({names})."


def _inside(name: str) -> str:
    """A metric inside a sentence: no comma, lower case except of names."""
    label = formatting.metric_label(name).replace(",", "")
    return label if label[:2].isupper() or formatting.stem(name) == "dice" else label[:1].lower() + label[1:]


def _mean(name: str, side: Side) -> str:
    return formatting.metric(name, side.mean) + ("" if side.sd is None else f" ± {formatting.metric(name, side.sd)}")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.2g}"


def _saved(sweep: SweepData) -> str:
    """What stopping early left undone, of what all trials as whole runs would have taken."""
    if not sweep.rungs or not sweep.trials or not sweep.samples_trained:
        return ""
    share = sweep.samples_trained / (sweep.rungs[-1] * len(sweep.trials))
    return f"{share:.0%} of what whole runs of all take" if share < 0.995 else ""


def _best_by(sweep: SweepData, metric: Metric) -> TrialData | None:
    """The sweep's own best for the first metric; for others the best whole run."""
    best = sweep.best_trial
    if metric is sweep.main and best is not None:
        return best if metric.name in best.scores else None
    number = _best_number(sweep, metric.name)
    return next((trial for trial in sweep.trials if trial.number == number), None)


def _best_number(sweep: SweepData, name: str) -> int | None:
    """The best whole run by a metric, where more than one has a value."""
    sign = next((metric.sign for metric in sweep.metrics if metric.name == name), formatting.better(name))
    whole = [trial for trial in sweep.searched if name in trial.scores and sweep.is_whole(trial)]
    return max(whole, key=lambda trial: sign * trial.scores[name]).number if whole else None


def _role(sweep: SweepData, trial: TrialData) -> str:
    marks = [trial.role + (f", seed {trial.seed}" if trial.role == "confirm" and trial.seed is not None else "")]
    marks += ["best"] if trial.number == sweep.best else []
    marks += ["Pareto"] if trial.number in sweep.front else []
    return ", ".join(marks)


def _column(name: str) -> str:
    label = formatting.metric_label(name)
    return f"{label} ({formatting.unit(name)})" if formatting.unit(name) else label


def _text(value: Value) -> str:
    if value is None:
        return formatting.MISSING
    return formatting.number(value) if is_number(value) else str(value)  # type: ignore[arg-type]


def _exact(value: Value) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _range(key: Key) -> str:
    """What a key's space is, in words."""
    if not key.ordered:
        return "one of " + ", ".join(key.choices)
    if key.kind == "simplex":
        return "a share; those of its task sum to 1"
    ends = " to ".join(formatting.number(end) for end in (key.low, key.high) if end is not None)
    kind = {"loguniform": "logarithmic", "uniform": "", "int": "whole numbers"}.get(key.kind, key.kind)
    return ", ".join(filter(None, (ends, kind))) or formatting.MISSING
