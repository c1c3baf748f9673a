"""The result files of a sweep: trials.csv, best.yaml, and sweep.json, which the report reads."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from math import hypot
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from collagan_dist import files
from collagan_dist.config.load import to_yaml
from collagan_dist.sweep import schedule, search
from collagan_dist.sweep.configurations import configurations, members, standard_error
from collagan_dist.sweep.schedule import SweepPlan
from collagan_dist.sweep.search import Observation
from collagan_dist.sweep.space_spec import METRICS
from collagan_dist.sweep.trial import Trial, samples_trained, saved_step

_MIN_RESULTS = 8  # at one length, before importance is computed


def trial_status(total: int, trial: Trial, over: bool) -> str:
    """Return done, running, failed, waiting (for its first segment), paused, or stopped (early, at a rung, for good)."""
    if trial.failed:
        return "failed"
    if trial.evaluated_at(total):
        return "done"
    if trial.running:
        return "running"
    # Only at the end of a sweep it is certain that a trial will not be promoted any more.
    return "waiting" if not trial.reached and not over else "stopped" if over else "paused"


def write_csv(out: Path, plan: SweepPlan, trials: Sequence[Trial], over: bool) -> None:
    """Write trials.csv: one line for each trial, with its values and the metrics of its last evaluation."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    facts = ("role", "seed", "samples", "restarts", "breaks", "reason")
    table.writerow(["trial", "configuration", "status", "steps", *plan.space.keys, *METRICS, *facts])
    for trial in trials:
        metrics = trial.results.get(trial.reached, {})  # also of a failed trial: how far it came
        table.writerow([
            trial.number, trial.configuration, trial_status(plan.total, trial, over), saved_step(out, trial),
            *(_cell(trial.values[key]) for key in plan.space.keys), *(metrics.get(name, "") for name in METRICS), trial.role, trial.seed,
            trial.reached, trial.restarts, "; ".join(plan.broken(trial, trial.reached)), trial.failure[1] if trial.failure else "",
        ])  # fmt: skip
    files.write_text(out / "trials.csv", text.getvalue())


def write_best(out: Path, plan: SweepPlan, trials: Sequence[Trial]) -> None:
    """Write best.yaml, the configuration of the best trial for `collagan train`; nothing before the first result."""
    best = schedule.best_trial(plan, trials)
    if best is None:
        # One that a longer training has shown to break a constraint must not stay.
        (out / "best.yaml").unlink(missing_ok=True)
        return
    at = plan.last_rung(best)
    head = [
        "# collagan train best.yaml --data SHARDS",
        f"# Trial {best.number}, of {plan.trials}: {plan.metric} {score_text(plan, trials, best)} after {at:,} samples.",
    ]
    if found := lead(plan, trials):
        head.append(f"# {lead_text(found)}")
    paper = schedule.paper_trial(plan, trials)
    if paper is not None and (metrics := paper.metrics_at(at)):
        head.append(f"# The paper's λ: {_number(metrics.get(plan.metric))} after as many.")
    if best.lineage:
        head.append(
            f"# These are its last values: PBT changed them during training (see trials/{best.name}/trial.json)."
        )
    files.write_text(out / "best.yaml", "\n".join(head) + "\n" + to_yaml(plan.space.config(best.values)))


def score_text(plan: SweepPlan, trials: Sequence[Trial], best: Trial) -> str:
    """Return the first metric of a configuration at its last rung: "21.25", of several seeds "21.25 ± 0.04 over 3 seeds"."""
    at = plan.last_rung(best)
    text = _number((best.metrics_at(at) or {}).get(plan.metric))
    error = standard_error(members(trials)[best.number], plan.metric, at)
    return text if error is None else f"{text} ± {error:.2g} over {plan.repeats} seeds"


def lead(plan: SweepPlan, trials: Sequence[Trial]) -> dict[str, Any] | None:
    """Compare the best configuration with the next one at its length; None with one seed each, or several metrics.

    `difference` is how much better it is, `error` the standard error of that, `clear` whether it is more than twice as much.
    """
    contenders = schedule.contenders(plan, trials)[:2]
    if len(contenders) < 2 or plan.repeats == 1 or len(plan.space.metrics) > 1:
        return None
    best, following = contenders
    at, groups = plan.last_rung(best), members(trials)
    errors = [standard_error(groups[one.number], plan.metric, at) or 0.0 for one in contenders]
    difference, error = plan.scores(best, at)[0] - plan.scores(following, at)[0], hypot(*errors)
    return {
        "trial": best.number, "next": following.number, "difference": difference, "error": error, "clear": difference > 2 * error,
    }  # fmt: skip


def lead_text(found: dict[str, Any]) -> str:
    text = f"{found['difference']:.2g} ± {found['error']:.2g} better than trial {found['next']}, the next"
    return text if found["clear"] else f"{text}: no more than the noise of seeds"


def plan_facts(plan: SweepPlan) -> dict[str, Any]:
    """Return what sweep.json says of a plan."""
    return {
        "metrics": [{"name": name, "mode": mode} for name, mode in zip(plan.space.metrics, plan.space.modes, strict=True)],
        "scheduler": plan.scheduler, "search": plan.space.spec.search,
        "constraints": plan.space.spec.model_dump(mode="json", exclude_none=True)["constraints"], "repeats": plan.repeats,
        "trials": plan.trials, "seed": plan.seed, "rungs": list(plan.rungs),
        "keys": {key: facts for dimension in plan.space.dimensions for key, facts in dimension.describe().items()},
    }  # fmt: skip


def write_summary(out: Path, plan: SweepPlan, trials: Sequence[Trial], facts: dict[str, Any]) -> None:
    """Write sweep.json: the given facts, among them `status`, and what is computed from the trials."""
    best = schedule.best_trial(plan, trials)
    files.write_json(out / "sweep.json", {
        **facts,
        "best": None if best is None else best.number,
        "front": [trial.number for trial in schedule.pareto_front(plan, trials)] if len(plan.space.metrics) > 1 else [],
        "lead": lead(plan, trials),
        "paper": next((trial.values for trial in trials if trial.role in ("paper", "base")), {}),
        # Computed once, at the end: this file is written after every segment.
        "importance": importance(plan, trials) if facts["status"] == "done" else {},
        "samples_trained": samples_trained(out, trials),
        "confirmed": confirmed(plan, trials),
    })  # fmt: skip


def observations(plan: SweepPlan, trials: Sequence[Trial]) -> list[Observation]:
    """Return the trials as samplers see them: by their metrics at the longest rung that enough of them have reached."""
    searched = configurations(trials, plan.repeats)
    # A model of few points would follow their noise, so longer rungs count once there are more points than dimensions.
    enough = len(plan.space.keys) + 2
    at = next(
        (rung for rung in reversed(plan.rungs) if sum(trial.evaluated_at(rung) for trial in searched) >= enough),
        plan.rungs[0],
    )
    # NSGA-II breeds from whole generations, and at longer rungs most of each are missing.
    at = plan.rungs[0] if plan.space.spec.search == "nsga2" else at
    found = []
    for trial in searched:
        constraints = plan.space.constraint_values(trial.metrics_at(at) or {})
        found.append(Observation(trial.values, trial.notes, _metrics(plan, trial, at), trial.failed, constraints))
    return found


def importance(plan: SweepPlan, trials: Sequence[Trial]) -> dict[str, dict[str, float]]:
    """Return by metric the importance of each key, {} with too few results."""
    known = [one for one in observations(plan, trials) if one.metrics is not None]
    return search.importance(plan.space, known) if len(known) >= _MIN_RESULTS else {}


def confirmed(plan: SweepPlan, trials: Sequence[Trial]) -> dict[str, Any] | None:
    """Compare the paper's λ and the best trial over the confirming seeds (Welch's t-test); None without results of both."""
    pair = schedule.trials_to_confirm(plan, trials)
    if pair is None:
        return None
    # The pair itself is left out: the best was chosen for its score, so that score is biased upwards.
    groups = [[trial for trial in trials if trial.role == "confirm" and trial.values == one.values] for one in pair]
    metrics = [[trial.metrics_at(plan.total) or {} for trial in group] for group in groups]
    scores = [[one[plan.metric] for one in group if plan.metric in one] for group in metrics]
    if not all(scores):
        return None
    from scipy.stats import ttest_ind

    paper, best = map(_summarize, scores)
    p = float(ttest_ind(*scores, equal_var=False).pvalue) if min(map(len, scores)) > 1 else None
    return {
        "seeds": plan.confirm, "metric": plan.metric, "paper": paper, "best": {"trial": pair[1].number, **best},
        "difference": best["mean"] - paper["mean"], "p": p if p == p else None,  # NaN where neither group varies
    }  # fmt: skip


def _summarize(values: list[float]) -> dict[str, Any]:
    return {"values": values, "mean": fmean(values), "sd": stdev(values) if len(values) > 1 else None}


def _metrics(plan: SweepPlan, trial: Trial, samples: int) -> tuple[float, ...] | None:
    values = [(trial.metrics_at(samples) or {}).get(name) for name in plan.space.metrics]
    return None if None in values else tuple(value for value in values if value is not None)


def _cell(value: Any) -> Any:
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else json.dumps(value)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
