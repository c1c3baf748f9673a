"""What a sweep leaves for people: trials.csv, best.yaml, sweep.json (read by the report)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from collagan_dist import files
from collagan_dist.config.load import to_yaml
from collagan_dist.sweep import schedule, search
from collagan_dist.sweep.schedule import Plan
from collagan_dist.sweep.search import Observation
from collagan_dist.sweep.space import METRICS
from collagan_dist.sweep.trial import Trial, samples_trained, saved_step

_ENOUGH = 8  # results of one length from which importance is computed


def status(plan: Plan, trial: Trial, over: bool) -> str:
    """`stopped` is early, at a rung, for good; `paused` may go on."""
    if trial.failure is not None:
        return "failed"
    if trial.has(plan.total):
        return "done"
    if trial.running:
        return "running"
    return "waiting" if not trial.reached and not over else "stopped" if over else "paused"


def write_csv(out: Path, plan: Plan, trials: Sequence[Trial], over: bool) -> None:
    """One line a trial: values as they are, metrics of its last result."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ["trial", "status", "steps", *plan.space.keys, *METRICS, "role", "seed", "samples", "restarts", "reason"]
    )
    for trial in trials:
        scores = trial.results.get(trial.reached, {})
        table.writerow([
            trial.number, status(plan, trial, over), saved_step(out, trial), *(_cell(trial.values[key]) for key in plan.space.keys),
            *(scores.get(name, "") for name in METRICS), trial.role, trial.seed, trial.reached, trial.restarts,
            trial.failure[1] if trial.failure else "",
        ])  # fmt: skip
    files.write_text(out / "trials.csv", text.getvalue())


def write_best(out: Path, plan: Plan, trials: Sequence[Trial]) -> Trial | None:
    """best.yaml, a configuration that `collagan train` takes; the trial that it is of."""
    best = schedule.best(plan, trials)
    if best is None:
        return None
    at = plan.compared(best)
    value = (best.at(at) or {}).get(plan.metric)
    head = [
        "# collagan train best.yaml --data SHARDS",
        f"# Trial {best.number}, of {plan.trials}: {plan.metric} {_number(value)} after {at:,} samples.",
    ]
    paper = schedule.of_the_paper(trials)
    if paper is not None and (scores := paper.at(at)):
        head.append(f"# The paper's λ: {_number(scores.get(plan.metric))} after as many.")
    if best.lineage:
        head.append("# These are its last values: PBT changed them on the way (trials/" + best.name + "/trial.json).")
    files.write_text(out / "best.yaml", "\n".join(head) + "\n" + to_yaml(plan.space.config(best.values)))
    return best


def write_summary(
    out: Path, plan: Plan, trials: Sequence[Trial], fixed: dict[str, Any], state: str, seconds: float
) -> None:
    """sweep.json: `fixed` is what a start found or laid down; the rest is computed from the trials."""
    best = schedule.best(plan, trials)
    paper = next((trial.values for trial in trials if trial.role in ("paper", "base")), {})
    over = state == "done"
    files.write_json(out / "sweep.json", {
        **fixed,
        "status": state,
        "best": None if best is None else best.number,
        "front": [trial.number for trial in schedule.front(plan, trials)] if len(plan.space.metrics) > 1 else [],
        "paper": paper,
        "importance": importance(plan, trials) if over else {},
        "samples_trained": samples_trained(out, trials),
        "seconds": seconds,
        "confirmed": confirmed(plan, trials),
    })  # fmt: skip


def observations(plan: Plan, trials: Sequence[Trial]) -> list[Observation]:
    """Trials as samplers know them: by their metrics at the furthest length that enough of them have come to."""
    searched = [trial for trial in trials if trial.role != "confirm"]
    enough = len(plan.space.keys) + 2
    at = next(
        (rung for rung in reversed(plan.rungs) if sum(trial.has(rung) for trial in searched) >= enough), plan.rungs[0]
    )
    return [
        Observation(trial.values, trial.notes, _metrics(plan, trial, at), trial.failure is not None)
        for trial in searched
    ]


def importance(plan: Plan, trials: Sequence[Trial]) -> dict[str, dict[str, float]]:
    known = [one for one in observations(plan, trials) if one.metrics is not None]
    return search.importance(plan.space, known) if len(known) >= _ENOUGH else {}


def confirmed(plan: Plan, trials: Sequence[Trial]) -> dict[str, Any] | None:
    """The paper's λ and the best ones over seeds that the search has not seen; None while there is nothing to compare."""
    pair = schedule.to_confirm(plan, trials)
    if pair is None:
        return None
    groups = [[trial for trial in trials if trial.role == "confirm" and trial.values == one.values] for one in pair]
    values = [
        [scores[plan.metric] for trial in group if (scores := trial.at(plan.total)) and plan.metric in scores]
        for group in groups
    ]
    if not all(values):
        return None
    from scipy.stats import ttest_ind

    (paper, best), means = [_spread(v) for v in values], [fmean(v) for v in values]
    p = float(ttest_ind(*values, equal_var=False).pvalue) if min(map(len, values)) > 1 else None
    return {
        "seeds": plan.confirm, "metric": plan.metric, "paper": paper, "best": {"trial": pair[1].number, **best},
        "difference": means[1] - means[0], "p": p if p is not None and p == p else None,
    }  # fmt: skip


def _spread(values: list[float]) -> dict[str, Any]:
    return {"values": values, "mean": fmean(values), "sd": stdev(values) if len(values) > 1 else None}


def _metrics(plan: Plan, trial: Trial, samples: int) -> tuple[float, ...] | None:
    scores = trial.at(samples)
    if scores is None or not all(name in scores for name in plan.space.metrics):
        return None
    return tuple(scores[name] for name in plan.space.metrics)


def _cell(value: Any) -> Any:
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else files.json.dumps(value)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
