"""What the trainings show: effects.md and effects.png from results.csv."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev, variance

from benchmarks.collaboration.design import (
    CHANGED,
    EFFECTS,
    EXPLORED,
    HERE,
    LABELS,
    PLANNED,
    POSITIONS,
    STAGES,
    TEN,
    UNITS,
    Row,
    read_results,
)
from collagan_dist.reproduce.statistics import freedom, holm, interval, p_value


@dataclass(frozen=True)
class Effect:
    """A difference between two models in one cell; `about` is what it tells: scheme, collaboration or both."""

    about: str
    metric: str
    model: str
    other: str
    value: float
    low: float
    high: float
    p: float
    seeds: tuple[int, int]


def effect(rows: Sequence[Row], about: str, metric: str, model: str, other: str) -> Effect | None:
    """Return a difference of means over seeds with its 95 % interval (Welch); relative to the other's for landmark errors."""
    found = _difference(rows, metric, model, other)
    if found is None:
        return None
    value, parts, counts = found
    low, high, p = _welch(value, parts)
    return Effect(about, metric, model, other, value, low, high, p, counts)


Parts = list[tuple[float, int]]  # of each side the variance of its mean and the degrees of freedom


def _difference(
    rows: Sequence[Row], metric: str, model: str, other: str
) -> tuple[float, Parts, tuple[int, int]] | None:
    sides = [[float(row[metric]) for row in rows if row["model"] == name and row[metric]] for name in (model, other)]
    if min(map(len, sides)) < 2:
        return None
    # Landmark errors of other sizes and widths compare as ratios.
    unit = fmean(sides[1]) / 100 if metric == "landmark_error" else 0.01 if metric == "dice" else 1.0
    parts = [(variance(side) / len(side) / unit**2, len(side) - 1) for side in sides]
    return (fmean(sides[0]) - fmean(sides[1])) / unit, parts, (len(sides[0]), len(sides[1]))


def _welch(value: float, parts: Parts) -> tuple[float, float, float]:
    """Return the 95 % interval and the p of a difference."""
    degrees, se = freedom(parts), sum(part for part, _ in parts) ** 0.5
    return *interval(value, se, degrees), p_value(value, se, degrees) or 0.0


def _changes(rows: Sequence[Row]) -> list[str]:
    """Return the table of how far the collaboration's effects in each cell differ from those of stage 1."""
    head = " | ".join(f"{LABELS[metric]}, {UNITS[metric]}: {model} − {other}" for metric, model, other in CHANGED)
    lines = [f"| change against stage 1, uncorrected | {head} |".replace("*", "\\*"), "|---|---|---|"]
    first = [row for row in rows if row["stage"] == "1"]
    for stage, cells in STAGES.items():
        for cell in cells if stage != "1" else ():
            here = [row for row in rows if (row["stage"], row["cell"]) == (stage, cell.name)]
            texts = []
            for contrast in CHANGED:
                there, before = _difference(here, *contrast), _difference(first, *contrast)
                if there is not None and before is not None:
                    value = there[0] - before[0]
                    low, high, _ = _welch(value, there[1] + before[1])
                    texts.append(f"{value:+.2f} ({low:+.2f} to {high:+.2f})")
            if texts:
                lines.append(f"| {cell.name} | {' | '.join(texts)} |")
    return ["## How the effects of collaboration change", "", *lines, ""]


def show() -> None:
    rows = read_results()
    lines = [
        "# Effects",
        "",
        "Mean over seeds ± standard deviation between seeds; differences with 95 % intervals over seeds (Welch).",
        "",
    ]
    found: dict[str, list[Effect]] = {}
    for stage, cells in STAGES.items():
        for cell in cells:
            here = [row for row in rows if (row["stage"], row["cell"]) == (stage, cell.name)]
            if here:
                lines += [f"## Stage {stage}: {cell.name}", "", *_models(here), ""]
                effects = [one for plan in PLANNED if (one := effect(here, *plan)) is not None]
                found[cell.name] = effects
                lines += _table("planned" if stage == "1" else "explored", effects, corrected=stage == "1")
                lines += _table(
                    "explored", [one for plan in EXPLORED if (one := effect(here, *plan)) is not None], False
                )
                lines += _at_positions(here)
    lines += _changes(rows)
    EFFECTS.write_text("\n".join(lines) + "\n")
    if found:
        _draw(found)


def _models(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| model | seeds | PSNR in the hole, dB | SSIM in the hole | PSNR at O1 to O6, dB | Dice | landmark error, px |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in TEN:
        mine = [
            row | {"O": str(fmean(float(row[o]) for o in POSITIONS)) if row["O1"] else ""}
            for row in rows
            if row["model"] == model
        ]
        if mine:
            cells = [
                _spread([float(row[name]) for row in mine if row[name]])
                for name in ("psnr_hole", "ssim_hole", "O", "dice", "landmark_error")
            ]
            lines.append(f"| {model.replace('*', chr(92) + '*')} | {len(mine)} | {' | '.join(cells)} |")
    return lines


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def _table(kind: str, effects: Sequence[Effect], corrected: bool) -> list[str]:
    if not effects:
        return []
    adjusted = holm([one.p for one in effects])
    head = f"| {kind} | about | metric | difference | 95 % | seeds | p |" + (" p (Holm) |" if corrected else "")
    lines = [head, "|---|---|---|---|---|---|---|" + ("---|" if corrected else "")]
    for one, p in zip(effects, adjusted, strict=True):
        names = f"{one.model} − {one.other}".replace("*", "\\*")
        numbers = f"{one.value:+.2f} {UNITS[one.metric]} | {one.low:+.2f} to {one.high:+.2f} | {one.seeds[0]}, {one.seeds[1]} | {one.p:.2g} |"
        lines.append(
            f"| {names} | {one.about} | {LABELS[one.metric]} | {numbers}" + (f" {p:.2g} |" if corrected else "")
        )
    return [*lines, ""]


def _at_positions(rows: Sequence[Row]) -> list[str]:
    """Return the differences of PSNR at each position, for all comparisons of completion."""
    lines = [
        f"| explored: PSNR, dB | {' | '.join(f'{name} {part}' for name, part in POSITIONS.items())} |",
        "|---|" + "---|" * len(POSITIONS),
    ]
    for about, metric, model, other in (*PLANNED, *EXPLORED):
        if metric == "psnr_hole":
            found = [effect(rows, about, position, model, other) for position in POSITIONS]
            cells = ["–" if one is None else f"{one.value:+.2f} ({one.low:+.2f} to {one.high:+.2f})" for one in found]
            if any(found):
                lines.append(f"| {model} − {other} | {' | '.join(cells)} |".replace("*", "\\*"))
    return [*lines, ""] if len(lines) > 2 else []


def _draw(found: dict[str, list[Effect]]) -> None:
    """Draw the collaboration's effect in every cell, one panel a metric."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 0.45 * len(found) + 1.6), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    wanted = (("psnr_hole", "M*_i"), ("dice", "M_s"), ("landmark_error", "M_d"))
    for axes, (metric, other) in zip(panels, wanted, strict=True):
        axes.axvline(0, color="0.6", linewidth=1)
        for place, effects in enumerate(found.values()):
            for one in effects:
                if (one.metric, one.model, one.other) == (metric, "M*_isd", other):
                    axes.errorbar(
                        one.value,
                        place,
                        xerr=[[one.value - one.low], [one.high - one.value]],
                        fmt="o",
                        color="#1f5fa8",
                        capsize=3,
                    )
        axes.set_title(f"{LABELS[metric]}: M*_isd − {other}", fontsize=9)
        axes.set_xlabel(UNITS[metric] + (" (lower is better)" if metric == "landmark_error" else " (higher is better)"))
        axes.set_yticks(range(len(found)), list(found))
    panels[0].invert_yaxis()
    figure.savefig(HERE / "effects.png", dpi=130, metadata={"Software": None})
