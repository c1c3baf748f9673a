"""Tables of a run: metrics beside their baselines, settings, events, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from collagan_dist.config.load import leaves
from collagan_dist.report import formatting
from collagan_dist.report.evaluation import EvaluationScores
from collagan_dist.report.run_data import CheckpointInfo, RunData
from collagan_dist.runs.metrics_log import MAX_EVENTS
from collagan_dist.units import format_bytes

# Other ways to compute a metric that has a column of its own already.
_VARIANTS = ("_per_image", "_argmax")


@dataclass(frozen=True)
class Cell:
    """A cell of a table. `extra` follows the text in small print: a standard error."""

    text: str
    extra: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table. `columns` are all headings, the first is that of the row names; `numeric` aligns cells to the right."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    note: str = ""
    numeric: bool = True
    compact: bool = False


def metric_tables(item: EvaluationScores) -> list[Table]:
    """Return one table for plain metrics, then one for each metric with classes or points (Dice, landmark error)."""
    # A slash separates a metric from its class or point.
    plain = [key for key in item.values if "/" not in key]
    tables = [_plain_table(item, plain)] if plain else []
    groups: dict[str, list[str]] = {}
    for key in item.values:
        if "/" in key and formatting.metric_name(key) not in groups.setdefault(formatting.base_metric(key), []):
            groups[formatting.base_metric(key)].append(formatting.metric_name(key))
    return tables + [_group_table(item, name, heads) for name, heads in groups.items()]


def _plain_table(item: EvaluationScores, keys: list[str]) -> Table:
    # A baseline of landmarks has no column among the metrics of completion.
    names = [name for name, values in item.baselines.items() if any(key in values for key in keys)]
    rows = []
    for key in keys:
        rows.append((summary_label(key), _cells_beside_baselines(item, key, names)))
    return Table("Completion" if "psnr" in keys else "Metrics", ("Metric", "This run", *_baselines(names)), tuple(rows))


def _group_table(item: EvaluationScores, name: str, heads: list[str]) -> Table:
    """Return a table with classes or points as rows, the average last, and variants and their baselines as columns."""
    rivals = {
        one: [base for base, values in item.baselines.items() if any(formatting.metric_name(k) == one for k in values)]
        for one in heads
    }
    rows = []
    for part in _parts(item, heads):
        own, others = [], []
        for one in heads:
            first, *rest = _cells_beside_baselines(item, f"{one}/{part}", rivals[one])
            own.append(first)
            others += rest
        rows.append((formatting.part_label(part), (*own, *others)))
    titles = [formatting.variant_label(one) for one in heads]
    titles += [_rival_title(one, base) for one in heads for base in rivals[one]]
    return Table(summary_label(name), ("Class" if name == "dice" else "Part", *titles), tuple(rows))


def _parts(item: EvaluationScores, heads: list[str]) -> list[str]:
    parts = dict.fromkeys(
        key.split("/", 1)[1] for key in item.values if "/" in key and formatting.metric_name(key) in heads
    )
    return [part for part in parts if part != "mean"] + (["mean"] if "mean" in parts else [])


def _rival_title(one: str, base: str) -> str:
    variant = "" if formatting.base_metric(one) == one else f", {formatting.variant_label(one).lower()}"
    return f"{formatting.to_words(base)} (baseline{variant})"


def _cells_beside_baselines(item: EvaluationScores, key: str, names: Sequence[str]) -> tuple[Cell, ...]:
    """Return the run's own value and those of baselines. The best is decided on the samples that all were measured on."""
    value, error = item.beside_baselines(key)
    values = [value, *(item.baselines[name].get(key) for name in names)]
    own, *rest = best_cells(key, values, [error, *(None for _ in names)])
    (whole,) = best_cells(key, [item.values.get(key)], [item.errors.get(key)])
    return replace(whole, best=own.best), *rest


def best_cells(key: str, values: list[float | None], errors: list[float | None]) -> tuple[Cell, ...]:
    """Return the values of one metric from several runs or baselines, with the best marked where one stands out."""
    best = clearly_best(key, values, errors)
    return tuple(
        Cell(
            formatting.format_metric(key, value),
            formatting.format_error(key, error) if value is not None else "",
            index == best,
        )
        for index, (value, error) in enumerate(zip(values, errors, strict=True))
    )


def clearly_best(key: str, values: list[float | None], errors: list[float | None]) -> int | None:
    """Return the index of the value that leads every other by more than one standard error of the difference.

    A baseline without a standard error counts as exact. None where nothing leads, or there is nothing to lead.
    """
    known = [(value, errors[index] or 0.0, index) for index, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return None
    value, error, best = max(known, key=lambda one: formatting.better_sign(key) * one[0])
    leads = all(
        abs(value - other) > math.hypot(error, other_error) for other, other_error, index in known if index != best
    )
    return best if leads else None


def _baselines(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{formatting.to_words(name)} (baseline)" for name in names)


def summary_keys(items: Iterable[EvaluationScores]) -> list[str]:
    """Return the metrics that describe an evaluation in one line: plain ones and averages over classes and points."""
    keys = dict.fromkeys(key for item in items for key in item.values)
    return [
        key
        for key in keys
        if "/" not in key or (key.endswith("/mean") and not formatting.metric_name(key).endswith(_VARIANTS))
    ]


def summary_label(key: str) -> str:
    """Return the heading of a metric in a table where every column is an average."""
    label = formatting.metric_label(formatting.metric_name(key))
    return f"{label} ({formatting.metric_unit(key)})" if formatting.metric_unit(key) else label


def evaluations_table(items: tuple[EvaluationScores, ...]) -> Table:
    """Return one row for each evaluation: other holes, other splits, blended."""
    keys = summary_keys(items)
    rows = tuple(
        (
            item.name,
            tuple(
                Cell(formatting.format_metric(k, item.values.get(k)), formatting.format_error(k, item.errors.get(k)))
                for k in keys
            ),
        )
        for item in items
    )
    return Table("All evaluations", ("Evaluation", *map(summary_label, keys)), rows, compact=True)


def flat(mapping: Mapping[str, Any]) -> dict[str, str]:
    """Return nested settings under dotted names, as a page writes them."""
    return {key: formatting.format_setting(None if value == {} else value) for key, value in leaves(mapping).items()}


def settings_tables(config: Mapping[str, Any]) -> list[Table]:
    """Return one table for each section; keys without a section share one."""
    # `seed` and `deterministic` have no section.
    nested = {key: value for key, value in config.items() if isinstance(value, Mapping) and value}
    loose = {key: value for key, value in config.items() if key not in nested}
    tables = [mapping_table(str(key), value) for key, value in nested.items()]
    return tables + ([mapping_table("general", loose)] if loose else [])


def changed_settings_table(run: RunData) -> Table:
    """Return the settings that differ from the nearest preset, beside the preset's."""
    preset, changed = run.preset
    rows = tuple(
        (key, tuple(Cell(formatting.format_setting(value)) for value in pair)) for key, pair in changed.items()
    )
    return Table(
        "Settings that differ from the preset", ("Setting", "This run", f"Preset {preset}"), rows, numeric=False
    )


def mapping_table(caption: str, mapping: Mapping[str, Any]) -> Table:
    rows = tuple((key, (Cell(value),)) for key, value in flat(mapping).items())
    return Table(caption, ("Key", "Value"), rows, numeric=False)


def events_table(run: RunData) -> Table:
    """Return the events of a run, after the notes on what could not be read."""
    events = run.log.events
    # Notes first: what is missing matters for reading everything else.
    rows = [("", (Cell("log"), Cell(note))) for note in run.log.notes]
    # The newest are kept: they tell why a run stopped.
    for event in events:
        step = formatting.format_number(event["step"]) if isinstance(event.get("step"), int) else ""
        details = flat({key: value for key, value in event.items() if key not in ("kind", "event", "step")})
        text = "; ".join(f"{key}: {value}" for key, value in details.items())
        rows.append((step, (Cell(formatting.format_setting(event.get("event", "event"))), Cell(text))))
    counts = run.log.event_counts
    note = ", ".join(f"{name} × {count}" for name, count in counts.items())
    if sum(counts.values()) > len(events):
        note += f". The last {MAX_EVENTS} are shown."
    return Table("Events", ("Step", "Event", "Details"), tuple(rows), note, numeric=False)


def checkpoints_table(points: tuple[CheckpointInfo, ...]) -> Table:
    rows = tuple(
        (
            formatting.format_number(point.step),
            (Cell(format_bytes(point.bytes)), Cell("yes" if point.complete else "no manifest.json")),
        )
        for point in points
    )
    note = f"{len(points)} kept, {format_bytes(sum(point.bytes for point in points))} together." if points else ""
    return Table("Checkpoints", ("Step", "Size", "Complete"), rows, note)
