"""Tables of a sweep: the best trial beside the paper's λ, all trials, failed trials, settings."""

from __future__ import annotations

from collections.abc import Sequence

from collagan_dist import shell
from collagan_dist.report import formatting
from collagan_dist.report.sweep_data import Key, SweepData
from collagan_dist.report.sweep_summary import STATUS_LABELS
from collagan_dist.report.tables import Cell, Table, summary_label
from collagan_dist.report.trial_data import TrialData, format_value

_SCHEDULERS = {
    "asha": "ASHA: at each rung the best trials continue, without waiting for the others",
    "sync_halving": "successive halving: at each rung all trials wait, then the best continue",
    "pbt": "population based training: at each generation the worst trials copy the best and vary their keys",
    "none": "none: every trial is a full-length run",
}
_SEARCHES = {
    "random": "random",
    "grid": "grid",
    "tpe": "TPE: samples where earlier trials were good",
    "nsga2": "NSGA-II: combines trials of the Pareto front",
}


def best_table(sweep: SweepData) -> Table | None:
    """Return keys and metrics of the best trial beside those of the paper's λ; None where the best is the paper's.

    Where one of them trained longer, metrics are compared at the shorter length too.
    """
    best, paper = sweep.best_trial, sweep.paper_trial
    # Beside itself the paper's trial would be a table of equal columns.
    if not sweep.keys or best is None or best.role == "paper":
        return None
    trials = [best, *([paper] if paper else [])]
    lengths, names = {one.samples for one in trials}, _columns(sweep)
    shown = [(one, one.samples) for one in trials]
    # Each at the shorter length, where it is known there, then the one that trained on.
    if None not in lengths:
        pairs = [(one, at) for at in sorted(filter(None, lengths)) for one in trials]
        shown = [
            (one, at) for one, at in pairs if at == one.samples or any(one.at(name, at) is not None for name in names)
        ]
    who = [f"Trial {one.number}" if one is best else "The paper's λ" for one, _ in shown]
    titles = [name + _after(at) for name, (_, at) in zip(who, shown, strict=True)]
    rows = []
    for key in sweep.keys:
        cells = [Cell(format_value(trial.values.get(key.name))) for trial, _ in shown]
        # Without a trial of the paper's λ their values are still known.
        cells += [] if paper else [Cell(format_value(key.paper))]
        rows.append((key.label, (*cells, Cell(_describe_space(key)))))
    for name in names:
        scores = [
            one.at(name, at) if at is not None and at != one.samples else one.scores.get(name) for one, at in shown
        ]
        cells = [Cell(formatting.format_metric(name, value)) for value in scores]
        rows.append((summary_label(name), (*cells, *([] if paper else [Cell("")]), Cell(""))))
    titles += [] if paper else ["The paper's λ"]
    return Table("The best trial and the paper's λ", ("", *titles, "Searched"), tuple(rows))


def _after(samples: int | None) -> str:
    return "" if samples is None else f" after {formatting.format_number(samples)} samples"


def train_options(sweep: SweepData) -> str:
    """Return the best trial's values as options of `collagan train`; "" without a best trial."""
    values = sweep.best_trial.values if sweep.best_trial else {}
    pairs = [(key.name, value) for key in sweep.keys if (value := values.get(key.name)) is not None]
    # Six digits: more than any result depends on, and short enough to copy.
    texts = [(name, f"{value:.6g}" if isinstance(value, float) else str(value)) for name, value in pairs]
    return shell.join(*(word for name, text in texts for word in ("--set", f"{name}={text}")))


def trials_table(sweep: SweepData) -> Table:
    """Return the optimized metrics and the keys of all trials: longest first, of equal length the best by the first metric."""
    names = list(dict.fromkeys([*(metric.name for metric in sweep.metrics), *sweep.constraints]))
    keys = tuple(key.label for key in sweep.keys)
    rows = []
    for trial in _ordered(sweep):
        values = [format_value(trial.values.get(key.name)) for key in sweep.keys]
        texts = [_count(trial.samples), *values, _status(sweep, trial)]
        rows.append((str(trial.number), (*_metric_cells(sweep, trial, names), *map(Cell, texts))))
    titles = ("Trial", *map(summary_label, names), "Samples", *keys, "Status")
    note = "Longer runs first, then by the first metric, at the trial's samples. The best full-length run of a metric is marked ★."
    note += (
        " Below a value that breaks a constraint is its bound; of equal length such trials come last."
        if sweep.constraints
        else ""
    )
    return Table("Trials", titles, tuple(rows), note, compact=True)


def metrics_table(sweep: SweepData) -> Table:
    """Return all metrics of all trials, in the order of `trials_table`."""
    names = _columns(sweep)
    rows = tuple(
        (str(trial.number), (Cell(_count(trial.steps)), *_metric_cells(sweep, trial, names)))
        for trial in _ordered(sweep)
    )
    return Table("All metrics of every trial", ("Trial", "Steps", *map(summary_label, names)), rows, compact=True)


def failed_table(sweep: SweepData) -> Table | None:
    failed = [trial for trial in sweep.trials if (trial.status == "failed" or trial.reason) and sweep.is_shown(trial)]
    rows = tuple(
        (
            str(trial.number),
            tuple(map(Cell, (_count(trial.steps), _count(trial.restarts), trial.reason or "no reason was recorded"))),
        )
        for trial in failed
    )
    return Table("Failed trials", ("Trial", "Steps", "Restarts", "Reason"), rows, numeric=False) if rows else None


def settings_table(sweep: SweepData) -> Table:
    metrics = [
        f"{metric.name} ({'larger' if metric.sign > 0 else 'smaller'} is better)" for metric in sweep.metrics
    ]  # fmt: skip
    rungs = "generations, in samples" if sweep.scheduler == "pbt" else "rungs, in samples"
    rows = {
        "scheduler": _SCHEDULERS.get(sweep.scheduler, sweep.scheduler),
        "search": _SEARCHES.get(sweep.search, sweep.search),
        "metrics": ", ".join(metrics),
        **({"constraints": ", ".join(_constraint_words(sweep))} if sweep.constraints else {}),
        "trials planned": formatting.format_setting(sweep.planned_trials),
        **({"seeds of each trial": str(sweep.repeats)} if sweep.repeats > 1 else {}),
        rungs: " · ".join(map(formatting.format_number, sweep.rungs)) or "none",
        "seed": formatting.format_setting(sweep.seed),
    }
    cells = tuple((key, (Cell(value),)) for key, value in rows.items())
    return Table("Settings of the sweep", ("Key", "Value"), cells, numeric=False)


def space_table(sweep: SweepData) -> Table:
    rows = tuple((key.name, (Cell(_describe_space(key)), Cell(format_value(key.paper)))) for key in sweep.keys)
    return Table("Search space", ("Key", "Space", "The paper's"), rows, numeric=False)


def _constraint_words(sweep: SweepData) -> list[str]:
    pairs = [(name, word, bound) for name, bounds in sweep.constraints.items()
             for word, bound in (("at least", bounds.min), ("at most", bounds.max)) if bound is not None]  # fmt: skip
    return [f"{name} {word} {formatting.format_number(bound)}" for name, word, bound in pairs]


def _columns(sweep: SweepData) -> list[str]:
    # A sweep of inpainting alone has no Dice.
    return [name for name in sweep.columns if any(name in trial.scores for trial in sweep.trials)]


def _ordered(sweep: SweepData) -> list[TrialData]:
    """Return the shown trials, longest first: values of other lengths cannot be compared; those without a value last.

    Of equal length, those that break a constraint come behind.
    """
    name, sign = sweep.main.name, sweep.main.sign
    scored = [trial for trial in sweep.trials if name in trial.scores]
    scored.sort(key=lambda trial: (-(trial.samples or 0), bool(sweep.broken(trial)), -sign * trial.scores[name]))
    return list(filter(sweep.is_shown, [*scored, *(trial for trial in sweep.trials if name not in trial.scores)]))


def _metric_cells(sweep: SweepData, trial: TrialData, names: Sequence[str]) -> list[Cell]:
    texts = [formatting.format_metric(name, trial.scores.get(name)) for name in names]
    broken = sweep.broken(trial)
    below = [
        ", ".join(filter(None, (formatting.format_error(name, trial.errors.get(name)), broken.get(name))))
        for name in names
    ]
    best = [sweep.best_number(name) == trial.number for name in names]
    return [Cell(*one) for one in zip(texts, below, best, strict=True)]


def _status(sweep: SweepData, trial: TrialData) -> str:
    """Return "done, best, Pareto": how it ended, and what it is beside one of the search."""
    words = [STATUS_LABELS.get(trial.status, trial.status) or formatting.MISSING]
    words += [trial.role] if trial.role != "search" else []
    words += [f"seed {trial.seed}"] if trial.role == "confirm" and trial.seed is not None else []
    words += ["best"] if trial.number == sweep.best else []
    words += ["Pareto"] if trial.number in sweep.front else []
    return ", ".join(words)


def _count(value: int | None) -> str:
    return formatting.MISSING if value is None else formatting.format_number(value)


def _describe_space(key: Key) -> str:
    if not key.ordered:
        return "one of " + ", ".join(key.choices)
    # Its ends are 0 and the total, which says nothing.
    if key.kind == "simplex":
        return "a share; the shares of all tasks sum to 1"
    ends = " to ".join(formatting.format_number(end) for end in (key.low, key.high) if end is not None)
    kind = {"loguniform": "logarithmic", "uniform": "", "int": "integers"}.get(key.kind, key.kind)
    return ", ".join(filter(None, (ends, kind))) or formatting.MISSING
