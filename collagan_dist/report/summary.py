"""A run in a few sentences, cards and tables: its model, its progress, its metrics against baselines and other runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from collagan_dist.config import models
from collagan_dist.report import formatting
from collagan_dist.report.evaluation import EvaluationScores
from collagan_dist.report.run_data import RunData, section
from collagan_dist.report.tables import Cell, Table, best_cells, clearly_best, flat, summary_keys, summary_label


@dataclass(frozen=True)
class Card:
    """A number at the top of the page with its label and a note below it."""

    label: str
    value: str
    note: str = ""


def model_name(run: RunData) -> str:
    """Return the paper's short name (M*_isd); tasks that the paper does not have are added by name."""
    model = section(run.config, "model")
    name = str(model.get("name", "model"))
    # A configuration that cannot be read has no tasks.
    if name == "collagan" and not run.tasks:
        return name
    return models.model_name(name, tuple(run.tasks), bool(model.get("concentrated")))


def progress(run: RunData) -> str:
    """Return how many of the planned steps are done."""
    done, planned = run.steps_done, run.steps_planned
    # Checkpoints count as well: the log may have been lost.
    if not run.log.train.count and not done:
        return "no steps yet"
    if planned is None:
        return f"{formatting.format_number(done)} steps"
    return f"{formatting.format_number(done)} of {formatting.format_number(planned)} steps" + (
        "" if done >= planned else ", not finished"
    )


def title(run: RunData) -> str:
    """Return preset, model, data and date of a run, as far as they are known."""
    data, date = str(run.data.get("dataset", "")), str(run.world.get("started", ""))[:10]
    return " · ".join(filter(None, (run.preset[0], model_name(run), data, date)))


def summary(run: RunData) -> str:
    """One line below the title of a run."""
    tasks = ", ".join(task.replace("_", " ") for task in run.tasks)
    changed = len(run.preset[1])
    settings = f"{changed} setting{'s' if changed > 1 else ''} not the preset's" if changed else ""
    return " · ".join(filter(None, (tasks, progress(run), settings)))


def headline(run: RunData) -> str:
    """Return the result against the best baselines in sentences; "" without an evaluation."""
    item = run.evaluation
    if item is None:
        return ""
    means = [
        key for key in summary_keys([item]) if key.endswith("/mean") and "_hole" not in formatting.metric_name(key)
    ]
    return " ".join(filter(None, (_completion(item), *(_average(item, key) for key in means))))


def versions(run: RunData) -> str:
    """Return what the run was made with, as world.json names it: versions, commit, ranks and hosts."""
    ranks = [rank for rank in run.world.get("ranks") or () if isinstance(rank, dict)]
    first = ranks[0] if ranks else {}
    known = {**first, "commit": run.world.get("commit")}  # None in an installed version
    parts = [f"{key} {known[key]}" for key in ("collagan_dist", "commit", "torch", "python") if known.get(key)]
    hosts = sorted({str(rank.get("host")) for rank in ranks})
    if ranks:
        parts.append(
            f"{len(ranks)} rank{'s' if len(ranks) > 1 else ''} on {', '.join(hosts[:3])}{', …' if hosts[3:] else ''}"
        )
    return " · ".join(parts)


def cards(run: RunData) -> list[Card]:
    """Return the numbers to look at first."""
    found = [Card("Steps", formatting.format_number(run.steps_done), _planned(run))]
    item = run.evaluation
    if item is not None:
        found += [_card(item, key) for key in _card_keys(item)]
    # The median, as a start or a checkpoint slows single lines.
    speeds = run.log.train.samples.get("images_per_s")
    if speeds:
        found.append(
            Card("Pictures per second", formatting.format_number(round(median(speeds), 1)), "median while training")
        )
    return found


def comparison_headline(runs: Sequence[RunData], names: Sequence[str]) -> str:
    """Return which run completes best, where one stands out; "" where they were not evaluated on the same."""
    items = [run.evaluation for run in runs]
    found = [item for item in items if item is not None and "psnr_hole" in item.values]
    if len(found) < 2 or len({(item.subject, item.samples) for item in found}) > 1:
        return ""
    values = [item.values.get("psnr_hole") if item else None for item in items]
    best = clearly_best("psnr_hole", values, [item.errors.get("psnr_hole") if item else None for item in items])
    if best is None:
        return "No run completes better than all others by more than one standard error."
    second = max(value for index, value in enumerate(values) if value is not None and index != best)
    lead = formatting.format_metric("psnr_hole", (values[best] or 0.0) - second, True)
    return f"{names[best]} completes best: by {lead} inside the hole."


def comparison_table(runs: Sequence[RunData], names: Sequence[str]) -> Table:
    """Return one row for each run, with the best value of each column marked."""
    items = [run.evaluation for run in runs]
    keys = summary_keys([item for item in items if item is not None])
    subjects = {(item.subject, item.samples) for item in items if item}
    columns = []
    for key in keys:
        values = [item.values.get(key) if item else None for item in items]
        errors = [item.errors.get(key) if item else None for item in items]
        cells = best_cells(key, values, errors)
        # On another hole or split nothing is better or worse.
        columns.append(cells if len(subjects) == 1 else tuple(replace(cell, best=False) for cell in cells))
    lead_titles = ("Model", "Steps", *(("Evaluated on",) if len(subjects) > 1 else ()))
    rows = []
    for index, (run, name) in enumerate(zip(runs, names, strict=True)):
        lead = [model_name(run), progress(run).replace(" steps", ""), _subject(items[index])][: len(lead_titles)]
        rows.append((name, (*map(Cell, lead), *(column[index] for column in columns))))
    headings = ("Run", *lead_titles, *map(summary_label, keys))
    return Table("Results", headings, tuple(rows), _comparison_note(items, names), compact=True)


def _comparison_note(items: Sequence[EvaluationScores | None], names: Sequence[str]) -> str:
    note = "± is one standard error."
    subjects = {(item.subject, item.samples): item for item in items if item}
    # Numbers on different holes or samples look comparable in one table.
    if len(subjects) > 1:
        note += " These runs were not evaluated on the same split, hole and number of samples, so that no best is marked: compare with care."
    missing = [name for item, name in zip(items, names, strict=True) if item is None]
    if len(subjects) == 1:
        note += " Bold with ★: the best of a column, where it leads all others by more than one standard error of the difference."
        who = "Those evaluated were" if missing else "All were evaluated"
        note += f" {who} on {_subject(next(iter(subjects.values())))}."
    return note + (f" Not evaluated: {', '.join(missing)}." if missing else "")


def _subject(item: EvaluationScores | None) -> str:
    if item is None:
        return formatting.MISSING
    return item.name + (f", {formatting.format_number(item.samples)} samples" if item.samples is not None else "")


def differences_table(runs: Sequence[RunData], names: Sequence[str]) -> Table:
    """Return the settings in which the runs differ."""
    settings = [flat(run.config) for run in runs]
    keys = dict.fromkeys(key for one in settings for key in one)
    # All others are in each run's own configuration below.
    differing = [key for key in keys if len({one.get(key) for one in settings}) > 1]
    rows = tuple((key, tuple(Cell(one.get(key, formatting.MISSING)) for one in settings)) for key in differing)
    return Table("Settings that differ", ("Setting", *names), rows, numeric=False)


def _planned(run: RunData) -> str:
    if run.steps_planned is None:
        return ""
    return f"of {formatting.format_number(run.steps_planned)} planned"


def _card_keys(item: EvaluationScores) -> list[str]:
    """Return the metrics that get a card: one variant of each."""
    # Inside the hole is what a completion is judged by; outside it the picture is given.
    keys = summary_keys([item])
    plain = [key for key in keys if "/" not in key]
    replaced = {formatting.base_metric(key) for key in plain if key.endswith("_hole")}
    plain = [key for key in plain if key.endswith("_hole") or formatting.base_metric(key) not in replaced]
    return plain + [key for key in keys if "/" in key and "_hole" not in formatting.metric_name(key)]


def _card(item: EvaluationScores, key: str) -> Card:
    notes = [formatting.format_error(key, item.errors.get(key))]
    if rival := _strongest_baseline(item, key):
        notes.append(f"{rival[0]} {formatting.format_metric(key, rival[1])}")
    return Card(
        formatting.metric_label(key),
        formatting.format_metric(key, item.values[key], True),
        " · ".join(filter(None, notes)),
    )


def _strongest_baseline(item: EvaluationScores, key: str) -> tuple[str, float] | None:
    rivals = [(name.replace("_", " "), values[key]) for name, values in item.baselines.items() if key in values]
    return max(rivals, key=lambda rival: formatting.better_sign(key) * rival[1], default=None)


def _completion(item: EvaluationScores) -> str:
    """Return the completion against the best baseline, which fills the hole without learning."""
    for key, where in (("psnr_hole", "inside the hole"), ("psnr", "over the whole picture")):
        rival = _strongest_baseline(item, key)
        # PSNR of the whole picture is mostly that of its given pixels, so the hole comes first.
        if key in item.values and rival:
            filling = f"{rival[0]} filling {where}"
            return f"Completed faces are {_against(item, key, rival[1], f'than {filling}', f'as {filling}')}."
    return ""


def _against(item: EvaluationScores, key: str, rival: float, than: str, good_as: str) -> str:
    """Return "4.70 dB worse than …", or "as good as …" where the difference is within one standard error, with both numbers."""
    value, error = item.beside_baselines(key)
    gain = formatting.better_sign(key) * ((value or 0.0) - rival)
    own = f"{formatting.format_metric(key, value)} {formatting.format_error(key, error)}".strip()
    where = f", first {item.baseline_samples:,} samples" if key in item.on_baseline_samples else ""
    numbers = f"({own} against {formatting.format_metric(key, rival, True)}{where})"
    if abs(gain) <= (error or 0):
        return f"as good {good_as} {numbers}"
    return f"{formatting.format_metric(key, abs(gain), True)} {'better' if gain > 0 else 'worse'} {than} {numbers}"


def _average(item: EvaluationScores, key: str) -> str:
    label = formatting.metric_label(formatting.metric_name(key))
    rival = _strongest_baseline(item, key)
    if rival is None:
        return f"{label} is {formatting.format_metric(key, item.values[key], True)} on average."
    return f"{label} is {_against(item, key, rival[1], f'than that of {rival[0]}', f'as that of {rival[0]}')}."
