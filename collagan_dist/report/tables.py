"""Tables of the page: metrics beside their baselines, settings, events, checkpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from collagan_dist.report import formatting
from collagan_dist.report.evaluation import EvaluationScores
from collagan_dist.report.run_data import CheckpointInfo, RunData
from collagan_dist.units import format_bytes

MAX_EVENTS = 200
_VARIANTS = ("_per_image", "_argmax")  # other ways to count what has a metric of its own


@dataclass(frozen=True)
class Cell:
    """`extra` is what stands smaller behind the text: a standard error."""

    text: str
    extra: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """`columns` names all columns, the first being that of the row names."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    note: str = ""
    numeric: bool = True
    compact: bool = False


def metric_tables(item: EvaluationScores) -> list[Table]:
    """One table for plain metrics, then one per group of classes or points (Dice, landmark error, any other task's)."""
    plain = [key for key in item.values if "/" not in key]
    tables = [_plain_table(item, plain)] if plain else []
    groups: dict[str, list[str]] = {}
    for key in item.values:
        if "/" in key and formatting.head(key) not in groups.setdefault(formatting.stem(key), []):
            groups[formatting.stem(key)].append(formatting.head(key))
    return tables + [_group_table(item, name, heads) for name, heads in groups.items()]


def _plain_table(item: EvaluationScores, keys: list[str]) -> Table:
    names = [name for name, values in item.baselines.items() if any(key in values for key in keys)]
    rows = []
    for key in keys:
        values = [item.values[key], *(item.baselines[name].get(key) for name in names)]
        errors = [item.errors.get(key), *(None for _ in names)]
        label = formatting.metric_label(key) + (f" ({formatting.unit(key)})" if formatting.unit(key) else "")
        rows.append((label, best_cells(key, values, errors)))
    return Table("Completion" if "psnr" in keys else "Metrics", ("Metric", "This run", *_baselines(names)), tuple(rows))


def _group_table(item: EvaluationScores, name: str, heads: list[str]) -> Table:
    """Rows are classes or points with their average last; columns are the variants, each with its baselines beside."""
    parts = _parts(item, heads)
    columns: list[tuple[str, str | None]] = [(one, None) for one in heads]
    for one in heads:
        columns += [
            (one, base) for base, values in item.baselines.items() if any(formatting.head(k) == one for k in values)
        ]
    rows = tuple(
        (formatting.part_label(part), tuple(_part_cell(item, f"{one}/{part}", base) for one, base in columns))
        for part in parts
    )
    titles = [_column_title(one, base) for one, base in columns]
    unit = formatting.unit(name)
    caption = formatting.metric_label(name) + (f" ({unit})" if unit else "")
    return Table(caption, ("Class" if name == "dice" else "Part", *titles), rows)


def _part_cell(item: EvaluationScores, key: str, base: str | None) -> Cell:
    """One class or point, of the run or of baseline `base`; the best of them is marked where a baseline has it too."""
    values = {name: numbers[key] for name, numbers in item.baselines.items() if key in numbers}
    mine = item.values.get(key)
    value = mine if base is None else values.get(base)
    best = bool(values) and value is not None and value == _best(key, [mine, *values.values()])
    extra = formatting.spread(key, item.errors.get(key)) if base is None and mine is not None else ""
    return Cell(formatting.metric(key, value), extra, best)


def _parts(item: EvaluationScores, heads: list[str]) -> list[str]:
    parts = dict.fromkeys(key.split("/", 1)[1] for key in item.values if "/" in key and formatting.head(key) in heads)
    return [part for part in parts if part != "mean"] + (["mean"] if "mean" in parts else [])


def _column_title(one: str, base: str | None) -> str:
    title = formatting.variant_label(one)
    if base is None:
        return title
    return f"{formatting.words(base)} (baseline{'' if formatting.stem(one) == one else ', ' + title.lower()})"


def best_cells(key: str, values: list[float | None], errors: list[float | None]) -> tuple[Cell, ...]:
    """Values of one metric from several runs or baselines; the best is marked when there is something to compare."""
    best = _best(key, values) if sum(value is not None for value in values) > 1 else None
    return tuple(
        Cell(
            formatting.metric(key, value),
            formatting.spread(key, error) if value is not None else "",
            value is not None and value == best,
        )
        for value, error in zip(values, errors, strict=True)
    )


def _best(key: str, values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known, key=lambda value: formatting.better(key) * value) if known else None


def _baselines(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{formatting.words(name)} (baseline)" for name in names)


def summary_keys(items: Iterable[EvaluationScores]) -> list[str]:
    """The metrics that stand for an evaluation in one line: plain ones and averages over all pictures."""
    keys = dict.fromkeys(key for item in items for key in item.values)
    return [
        key
        for key in keys
        if "/" not in key or (key.endswith("/mean") and not formatting.head(key).endswith(_VARIANTS))
    ]


def summary_label(key: str) -> str:
    """Column heading of a metric where all stand for averages anyway."""
    label = formatting.metric_label(formatting.head(key))
    return f"{label} ({formatting.unit(key)})" if formatting.unit(key) else label


def evaluations_table(items: tuple[EvaluationScores, ...]) -> Table:
    """One row per evaluation: other holes, other splits, blended."""
    keys = summary_keys(items)
    rows = tuple(
        (
            item.name,
            tuple(
                Cell(formatting.metric(k, item.values.get(k)), formatting.spread(k, item.errors.get(k))) for k in keys
            ),
        )
        for item in items
    )
    return Table("All evaluations", ("Evaluation", *map(summary_label, keys)), rows, compact=True)


def flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names; lists stay on one line unless they hold mappings."""
    out: dict[str, str] = {}
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            value = {str(index): item for index, item in enumerate(value)}
        if isinstance(value, Mapping) and value:
            out |= flat(value, f"{name}.")
        else:
            out[name] = formatting.plain(None if isinstance(value, Mapping) else value)
    return out


def settings_tables(config: Mapping[str, Any]) -> list[Table]:
    """One small table per top-level key; keys without a section share one."""
    nested = {key: value for key, value in config.items() if isinstance(value, Mapping) and value}
    loose = {key: value for key, value in config.items() if key not in nested}
    tables = [mapping_table(str(key), value) for key, value in nested.items()]
    return tables + ([mapping_table("general", loose)] if loose else [])


def mapping_table(caption: str, mapping: Mapping[str, Any]) -> Table:
    rows = tuple((key, (Cell(value),)) for key, value in flat(mapping).items())
    return Table(caption, ("Key", "Value"), rows, numeric=False)


def events_table(run: RunData) -> Table:
    """What happened besides steps; the notes about the log itself come first."""
    events = run.log.events
    rows = [("", (Cell("log"), Cell(note))) for note in run.log.notes]
    for event in events[-MAX_EVENTS:]:
        step = formatting.number(event["step"]) if isinstance(event.get("step"), int) else ""
        details = flat({key: value for key, value in event.items() if key not in ("kind", "event", "step")})
        text = "; ".join(f"{key}: {value}" for key, value in details.items())
        rows.append((step, (Cell(formatting.plain(event.get("event", "event"))), Cell(text))))
    counts = Counter(formatting.plain(event.get("event", "event")) for event in events)
    note = ", ".join(f"{name} × {count}" for name, count in counts.items())
    if len(events) > MAX_EVENTS:
        note += f". The last {MAX_EVENTS} are shown."
    return Table("Events", ("Step", "Event", "Details"), tuple(rows), note, numeric=False)


def checkpoints_table(points: tuple[CheckpointInfo, ...]) -> Table:
    rows = tuple(
        (
            formatting.number(point.step),
            (Cell(format_bytes(point.bytes)), Cell("yes" if point.complete else "no manifest.json")),
        )
        for point in points
    )
    note = f"{len(points)} kept, {format_bytes(sum(point.bytes for point in points))} together." if points else ""
    return Table("Checkpoints", ("Step", "Size", "Complete"), rows, note)
