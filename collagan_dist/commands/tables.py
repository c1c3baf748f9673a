"""Tables of metrics, of planned runs and of a reproduction's averages, on stdout."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from collagan_dist.units import format_bytes, format_duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from collagan_dist.audit.audit import Audit
    from collagan_dist.audit.finding import AuditFinding
    from collagan_dist.reproduce.estimate import RunEstimate

# Metric: (label, number format).
_METRICS = {
    "psnr_hole": ("PSNR in the hole, dB", ".2f"),
    "psnr": ("PSNR, dB", ".2f"),
    "ssim_hole": ("SSIM in the hole", ".3f"),
    "ssim": ("SSIM", ".3f"),
    "frechet": ("Fréchet distance", ".3g"),
    "perceptual": ("perceptual distance", ".4f"),
    "dice": ("Dice, mean of classes", ".3f"),
    "landmark_error": ("landmark error, pixels", ".2f"),
}


def metrics_table(metrics: dict[str, Any]) -> None:
    """Print the main metrics of an evaluation: those of the model, their standard errors, those of the baselines."""
    baselines = metrics.get("baselines", {})
    # Slow baselines are computed on the first samples only.
    subset = metrics.get("baselines_subset", {}).get("samples")
    title = f"{metrics['samples']} {metrics['split']} samples, {'no' if metrics['hole'] == 'none' else metrics['hole']} holes"
    if "hole_size" in metrics:
        title += " of {:.1f}x{:.1f} pixels".format(*metrics["hole_size"])
    title += ", blended" if metrics["blend"] == "poisson" else ""
    # In the title: beside each name it would make the table wider than 80 columns, and numbers would be cut.
    title += f"; baselines on the first {subset}" if subset else ""
    table = new_table("", ("metric",), left=("metric",))
    for name in ("this_model", "±", *baselines):
        # A word a line: with two baselines for each task the table fits 80 columns.
        table.add_column(name.replace("_", "\n"), justify="right", no_wrap=True)
    for key, (label, form) in _METRICS.items():
        if (value := _scalar(metrics.get(key))) is not None:
            others = [_scalar(b.get(key)) for b in baselines.values()]
            cells = [value, _scalar(metrics.get("se", {}).get(key)), *others]
            table.add_row(label, *("" if c is None else format(c, form) for c in cells))
    screen = console()
    # Apart from the table, to whose width rich would break it.
    screen.print(title, style="italic", highlight=False, soft_wrap=True)
    screen.print(table)


def plan_table(estimates: Sequence[RunEstimate]) -> None:
    """Print a reproduction's runs: what is done of each, what it takes, and the sums."""
    steps = [one.run.steps for one in estimates]
    samples = [one.run.steps * one.run.config.schedule.batch for one in estimates]
    seconds = [one.seconds for one in estimates if one.seconds is not None]
    sizes = [one.bytes for one in estimates if one.bytes is not None]
    sums = [str(sum(steps)), str(sum(samples)), "", _or_unknown(sum(seconds) if seconds else None, format_duration),
            _or_unknown(sum(sizes) if sizes else None, format_bytes)]  # fmt: skip
    table = new_table("Runs", ("run", "steps", "samples", "done", "time left", "storage"), left=("run",))
    table.show_footer = True
    for column, foot in zip(table.columns[1:], sums, strict=True):
        column.footer = foot
    for one, *counts in zip(estimates, steps, samples, strict=True):
        # Training takes most of the time, so the percentage is of steps alone.
        done = f"{one.steps_done / one.run.steps:.0%}"
        if one.steps_done == one.run.steps:
            done = "yes" if one.is_evaluated else "trained"
        takes = (_or_unknown(one.seconds, format_duration), _or_unknown(one.bytes, format_bytes))
        table.add_row(one.run.name, *map(str, counts), done, *takes)
    console().print(table)
    console().print(
        "time: training alone, one run after the other, by the logs of runs that have begun; sums are of the known ones"
    )


def _or_unknown(value: float | None, form: Callable[[float], str]) -> str:
    return "unknown" if value is None else form(value)


def averages_table(out: Path, tables: Sequence[int]) -> None:
    """Print the averages of a reproduction's tables: paper, ours, difference."""
    from collagan_dist.report import paper_tables

    names = ("table", "model", "number")
    table = new_table("Averages", (*names, "paper", "ours", "difference"), left=names)
    for number in tables:
        content = paper_tables.read_table(out, number)
        for model, row in content["cells"].items():
            for name, cells in _averaged(number, row).items():
                paper = fmean(cell["paper"] for cell in cells)
                known = [cell["ours"] for cell in cells if cell["ours"] is not None]
                # An average over some positions would not be comparable with the paper's.
                ours = fmean(known) if len(known) == len(cells) else None
                found = ("–", "–") if ours is None else (f"{ours:.2f}", f"{ours - paper:+.2f}")
                table.add_row(str(number), model, name, f"{paper:.2f}", *found)
    if table.row_count:
        console().print(table)


_VERDICTS = {"equal": "equal bit for bit", "within": "within bounds", "differs": "DIFFERS", "damaged": "DAMAGED"}


def audit_table(audit: Audit) -> None:
    """Print what an audit found: a line a comparison, then what has to be said of each."""
    columns = ("what", "with", "compared", "verdict")
    table = new_table("", columns, left=columns)
    for one in audit.findings:
        table.add_row(one.subject, one.how, one.compared, _VERDICTS.get(one.verdict, one.verdict))
    screen = console()
    title = f"Audit of {audit.run} (--seed {audit.seed})"
    screen.print(title, style="italic", highlight=False, soft_wrap=True)
    screen.print(table)
    for one in audit.findings:
        for text in _remarks(one):
            screen.print(
                f"{one.subject}{f', {one.how}' * bool(one.how)}: {text}", highlight=False, markup=False, soft_wrap=True
            )
    for note in audit.notes:
        screen.print(f"not looked at: {note}", highlight=False, markup=False, soft_wrap=True)
    said = {"passed": "found nothing that differs", "nothing confirmed": "confirmed nothing"}
    screen.print(f"the audit {said.get(audit.verdict, audit.verdict)}")


def _remarks(one: AuditFinding) -> list[str]:
    """Return sentences on a finding, the most telling first."""
    texts = [f"differs: {text}" for text in one.wrong]
    if one.bound is not None and one.verdict in ("within", "undecided"):
        texts.append(f"{one.share:.2g} of the change of the weights, at most {one.bound:.2g} is explained by roundings")
    if one.verdict == "undecided":
        texts.append("roundings alone move the weights that far, so this says nothing; a shorter stretch would")
    if one.reasons and one.verdict != "equal":
        texts.append(f"bits may differ: {'; '.join(one.reasons)}")
    return texts + [f"not compared: {text}" for text in one.notes]


def _averaged(number: int, row: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the cells that are averaged, by label: Table 1's six positions, blended; the average column of the others."""
    if number == 1:
        names = {"SSIM %, blended": "ssim_blended", "PSNR dB, blended": "psnr_blended"}
        return {name: [cell[key] for cell in row.values()] for name, key in names.items()}
    return {{2: "Dice %", 3: "landmark error, pixels"}[number]: [row["average"]]}


def new_table(title: str, columns: Sequence[str], left: Collection[str]) -> Table:
    """Return an empty table; columns that are not in `left` are aligned at the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    # Two spaces between columns, so that the widest tables fit 80.
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for name in columns:
        # A wrapped number would be read as two.
        table.add_column(name, justify="left" if name in left else "right", no_wrap=True)
    return table


def console() -> Console:
    """Return stdout with the terminal's width."""
    from rich.console import Console

    # A file or a pipe has no width; rich would assume 80 columns, too few for these tables.
    return screen if (screen := Console()).is_terminal else Console(width=120)


def _scalar(value: Any) -> float | None:
    # Metrics with a value a class or a point have their average under "mean".
    return value.get("mean") if isinstance(value, dict) else value
