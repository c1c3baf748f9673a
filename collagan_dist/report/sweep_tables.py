"""Tables of a sweep: the best trial beside the paper's λ, all trials, failed trials, settings, and the importance of keys."""

from __future__ import annotations

from collagan_dist import shell
from collagan_dist.report import formatting
from collagan_dist.report.evaluation import is_number
from collagan_dist.report.sweep_data import Key, SweepData
from collagan_dist.report.sweep_summary import STATUS_LABELS, best_full_length
from collagan_dist.report.tables import Cell, Table, summary_label
from collagan_dist.report.trial_data import TrialData, Value

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
    """Return keys and metrics of the best trial beside those of the paper's λ; None where the best is the paper's."""
    best, paper = sweep.best_trial, sweep.paper_trial
    shown = [trial for trial in (best, paper) if trial is not None]
    # Beside itself the paper's trial would be a table of equal columns.
    if not sweep.keys or not shown or shown[0].role == "paper":
        return None
    rows = []
    for key in sweep.keys:
        cells = [Cell(_format_value(trial.values.get(key.name))) for trial in shown]
        # Without a trial of the paper's λ their values are still known.
        cells += [] if paper else [Cell(_format_value(key.paper))]
        rows.append((key.label, (*cells, Cell(_describe_space(key)))))
    for name in sweep.columns:
        scores = [trial.scores.get(name) for trial in shown]
        if any(value is not None for value in scores):
            cells = [Cell(formatting.format_metric(name, value)) for value in scores]
            rows.append((summary_label(name), (*cells, *([] if paper else [Cell("")]), Cell(""))))
    titles = [f"Trial {trial.number}" if trial.role != "paper" else "The paper's λ" for trial in shown]
    titles += [] if paper else ["The paper's λ"]
    return Table("The best trial and the paper's λ", ("", *titles, "Searched"), tuple(rows))


def train_options(sweep: SweepData) -> str:
    """Return the best trial's values as options of `collagan train`; "" without a best trial."""
    values = sweep.best_trial.values if sweep.best_trial else {}
    pairs = [(key.name, value) for key in sweep.keys if (value := values.get(key.name)) is not None]
    # Six digits: more than any result depends on, and short enough to copy.
    texts = [(name, f"{value:.6g}" if isinstance(value, float) else str(value)) for name, value in pairs]
    return shell.join(*(word for name, text in texts for word in ("--set", f"{name}={text}")))


def importance_bars(sweep: SweepData) -> list[tuple[str, list[tuple[str, float]]]]:
    """Return (metric, [(key, share)]) for each metric that has shares."""
    metrics = [metric for metric in sweep.metrics if metric.name in sweep.importance]
    if not metrics:
        return []
    # All lists have the order of the first, so that metrics can be compared line by line.
    first = sweep.importance[metrics[0].name]
    keys = sorted(sweep.keys, key=lambda key: -first.get(key.name, 0.0))
    shares = [(metric, sweep.importance[metric.name]) for metric in metrics]
    return [
        (formatting.metric_label(metric.name), [(key.label, by[key.name]) for key in keys if key.name in by])
        for metric, by in shares
    ]


def trials_table(sweep: SweepData) -> Table:
    """Return all trials, with the best full-length run of each metric marked."""
    # A sweep of inpainting alone has no Dice.
    columns = [name for name in sweep.columns if any(name in trial.scores for trial in sweep.trials)]
    best = {name: best_full_length(sweep, name) for name in columns}
    # An empty wide column would push the metrics off the screen.
    has_reasons = any(trial.reason for trial in sweep.trials)
    rows = []
    for trial in filter(sweep.is_shown, sweep.trials):
        status = STATUS_LABELS.get(trial.status, trial.status) or formatting.MISSING
        texts = [_role(sweep, trial), status, _count(trial.steps), _count(trial.samples)]
        texts += [_format_value(trial.values.get(key.name)) for key in sweep.keys]
        metrics = [
            Cell(formatting.format_metric(name, trial.scores.get(name)), best=best[name] == trial.number)
            for name in columns
        ]
        reason = [Cell(trial.reason)] if has_reasons else []
        rows.append((str(trial.number), (*map(Cell, texts), *metrics, *reason)))
    titles = ("Trial", "Role", "Status", "Steps", "Samples", *(key.label for key in sweep.keys))
    titles += (*map(summary_label, columns), *(("Reason",) if has_reasons else ()))
    note = (
        "Metrics are those at the trial's samples. The best full-length run of each metric is bold and marked ★."
    )  # fmt: skip
    return Table("Trials", titles, tuple(rows), note)


def failed_table(sweep: SweepData) -> Table | None:
    # Above the large table, where the reasons would be far to the right.
    failed = [trial for trial in sweep.trials if trial.status == "failed" and sweep.is_shown(trial)]
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
        "trials planned": formatting.format_setting(sweep.planned_trials),
        rungs: " · ".join(map(formatting.format_number, sweep.rungs)) or "none",
        "seed": formatting.format_setting(sweep.seed),
    }
    cells = tuple((key, (Cell(value),)) for key, value in rows.items())
    return Table("Settings of the sweep", ("Key", "Value"), cells, numeric=False)


def space_table(sweep: SweepData) -> Table:
    rows = tuple((key.name, (Cell(_describe_space(key)), Cell(_format_value(key.paper)))) for key in sweep.keys)
    return Table("Search space", ("Key", "Space", "The paper's"), rows, numeric=False)


def _role(sweep: SweepData, trial: TrialData) -> str:
    marks = [trial.role + (f", seed {trial.seed}" if trial.role == "confirm" and trial.seed is not None else "")]
    marks += ["best"] if trial.number == sweep.best else []
    marks += ["Pareto"] if trial.number in sweep.front else []
    return ", ".join(marks)


def _count(value: int | None) -> str:
    return formatting.MISSING if value is None else formatting.format_number(value)


def _format_value(value: Value) -> str:
    if value is None:
        return formatting.MISSING
    return formatting.format_number(value) if is_number(value) else str(value)


def _describe_space(key: Key) -> str:
    if not key.ordered:
        return "one of " + ", ".join(key.choices)
    # Its ends are 0 and the total, which says nothing.
    if key.kind == "simplex":
        return "a share; the shares of all tasks sum to 1"
    ends = " to ".join(formatting.format_number(end) for end in (key.low, key.high) if end is not None)
    kind = {"loguniform": "logarithmic", "uniform": "", "int": "integers"}.get(key.kind, key.kind)
    return ", ".join(filter(None, (ends, kind))) or formatting.MISSING
