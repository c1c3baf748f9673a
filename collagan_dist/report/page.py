"""From run folders to one HTML file that needs nothing but itself."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from collagan_dist.errors import DataError
from collagan_dist.report import formatting, pictures, sensitivity, summary, sweep_summary, tables
from collagan_dist.report.charts import Chart, comparison_charts, eval_charts, train_charts
from collagan_dist.report.reproduction import is_reproduction, read_reproduction
from collagan_dist.report.run_data import RunData, read_run
from collagan_dist.report.sweep_data import SweepData, is_sweep, read_sweep
from collagan_dist.runs.layout import RunPaths

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Figure:
    """A picture with what it shows, in words."""

    picture: pictures.EmbeddedPicture
    alt: str
    caption: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plot:
    """A drawn chart: title, legend entries (label, colour, dashes), SVG and description."""

    title: str
    unit: str
    legend: tuple[tuple[str, int, str], ...]
    svg: Any
    description: str


def write_report(paths: Sequence[Path], out: Path | None = None) -> Path:
    """Write one page about the run folders `paths`, or about one reproduction or sweep, and return where it is.

    Without `out`: report.html in the run folder, or in the folder that several runs share.
    """
    folders = list(dict.fromkeys(Path(path).resolve() for path in paths))
    if not folders:
        raise DataError("No run folder was named. Name at least one folder that holds a config.yaml.")
    pages = ((is_reproduction, "a reproduction", _render_reproduction), (is_sweep, "a sweep", _render_sweep))
    alone = [(folder, what, render) for found, what, render in pages for folder in folders if found(folder)]
    if alone and len(folders) > 1:
        raise DataError(f"{alone[0][0]}: is {alone[0][1]}, which is shown on a page of its own. Name it alone.")
    if alone:
        text = alone[0][2](folders[0])
    else:
        text = _render([read_run(folder) for folder in folders], _names(folders))
    target = _target(folders, out)
    try:
        _write(target, text)
    except OSError as error:
        raise DataError(
            f"{target}: the report cannot be written there ({error.strerror}). Name another file."
        ) from error
    return target


def _target(folders: Sequence[Path], out: Path | None) -> Path:
    if out is not None:
        return out / "report.html" if out.is_dir() else out
    if len(folders) == 1:
        return RunPaths(folders[0]).report
    return Path(os.path.commonpath(folders)) / "report.html"


def _write(target: Path, text: str) -> None:
    """Beside first, then renamed: whoever opens report.html sees a whole page."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _names(folders: Sequence[Path]) -> list[str]:
    """Folder names; the path below the common folder where two runs have the same."""
    names = [folder.name for folder in folders]
    if len(set(names)) == len(names):
        return names
    common = os.path.commonpath(folders)
    return [os.path.relpath(folder, common) for folder in folders]


def _fill(**content: Any) -> str:
    """page.html with its content; what it shows one of, and is not named, is none."""
    import jinja2

    loader = jinja2.FileSystemLoader(_HERE)
    env = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    content = {"runs": [], "comparison": None, "reproduction": None, "sweep": None, **content}
    return env.get_template("page.html").render(**content, written=datetime.now().strftime("%Y-%m-%d %H:%M"))


def _render_reproduction(folder: Path) -> str:
    found = read_reproduction(folder)
    figures = []
    for path, caption in found.figures:
        name = f"Figure {path.stem.removeprefix('figure')}"
        try:
            figures.append(Figure(pictures.embed(path, pictures.LARGE), f"{name}. {caption}", f"{name}: {caption}"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path}: cannot be shown ({error}); remove it and run `collagan reproduce` again"
            ) from None
    return _fill(title=found.name, reproduction=found, figures=figures)


def _render_sweep(folder: Path) -> str:
    found = read_sweep(folder)
    figures, notes = _sweep_figures(found)
    return _fill(title=found.name, sweep=_sweep_view(found, notes), figures=figures)


def _sweep_view(found: SweepData, notes: Sequence[str]) -> dict[str, Any]:
    from collagan_dist.report import parallel_coordinates, sweep_charts

    main, others = found.main, found.metrics[1:]
    depends = [sensitivity.sensitivity(found, key, main) for key in found.keys]
    depends = [one for one in depends if one.points]

    def ways(metric: Any, uid: str) -> list[Any]:
        return [sweep_charts.history(found, metric, f"{uid}h"), sweep_charts.curves(found, metric, f"{uid}c")]

    return {
        "name": found.name,
        "about": found.about,
        "state": sweep_summary.state(found),
        "headline": sweep_summary.headline(found),
        "cards": sweep_summary.cards(found),
        "main": formatting.metric_label(main.name),
        "stopped": any(trial.status == "stopped" for trial in found.trials),
        "repeated": len(found.searched) < len(found.trials),
        "plots": _shown(ways(main, "m0")),
        "more_plots": _shown(drawn for i, metric in enumerate(others, 1) for drawn in ways(metric, f"m{i}")),
        "parallel": next(iter(_shown([parallel_coordinates.parallel(found, "par")])), None),
        "sensitivity": _shown(sweep_charts.key_scatter(found, one, f"k{i}") for i, one in enumerate(depends)),
        "verdict": sensitivity.verdict(depends, found),
        "fronts": _shown(sweep_charts.pareto(found, main, metric, f"f{i}") for i, metric in enumerate(others)),
        "importance": sweep_summary.importance(found),
        "best": sweep_summary.best_table(found),
        "command": sweep_summary.command(found),
        "failed": sweep_summary.failed_table(found),
        "table": sweep_summary.trials_table(found),
        "notes": [*found.notes, *notes],
        "settings": sweep_summary.settings_table(found),
        "space": sweep_summary.space_table(found),
    }


def _shown(drawings: Iterable[Any]) -> list[Any]:
    """Those that there are, with their SVG as it is: matplotlib's own output, whose texts it escapes itself."""
    from markupsafe import Markup

    return [replace(drawing, svg=Markup(drawing.svg)) for drawing in drawings if drawing is not None]


def _sweep_figures(found: SweepData) -> tuple[list[Figure], list[str]]:
    """The last grids of the best trial and of the paper's; what is missing is left out, what is damaged a note."""
    figures: list[Figure] = []
    notes: list[str] = []
    best, paper = found.best_trial, found.paper_trial
    named = [(best, "the best")] if best is not None else []
    named += [(paper, "the paper's λ")] if paper is not None and paper is not best else []
    for trial, what in named:
        folder = found.folder(trial)
        if not RunPaths(folder).exists():
            continue
        try:
            run = read_run(folder)
        except DataError as error:
            notes.append(f"The pictures of trial {trial.number} are left out: {error}")
            continue
        figure = _grid(run, *run.grids[-1], limit=pictures.LARGE) if run.grids else None
        if figure is not None:
            name = f"Trial {trial.number}, {what}"
            figures.append(replace(figure, caption=f"{name}: {figure.caption.lower()}", alt=f"{name}. {figure.alt}"))
        elif run.grids:
            notes += [note for note in run.log.notes if "cannot be shown" in note]
    return figures, notes


def _render(runs: Sequence[RunData], names: Sequence[str]) -> str:
    several = len(runs) > 1
    return _fill(
        title=f"Comparison of {len(runs)} runs" if several else names[0],
        runs=[_run_view(run, name, f"r{index}") for index, (run, name) in enumerate(zip(runs, names, strict=True))],
        comparison=_comparison_view(runs, names) if several else None,
    )


def _comparison_view(runs: Sequence[RunData], names: Sequence[str]) -> dict[str, Any]:
    charts = comparison_charts(runs, names)
    return {
        "results": summary.comparison_table(runs, names),
        "differences": summary.differences_table(runs, names),
        "plots": _plots((chart for chart in charts if chart.main), "cmp"),
        "more_plots": _plots((chart for chart in charts if not chart.main), "cmq"),
    }


def _run_view(run: RunData, name: str, uid: str) -> dict[str, Any]:
    train, evals = train_charts(run), eval_charts(run)
    main = [chart for chart in evals + train if chart.main]
    more = [chart for chart in train + evals if not chart.main]
    last, earlier, sheets = _figures(run)
    return {
        "id": uid,
        "name": name,
        "summary": summary.summary(run),
        "headline": summary.headline(run),
        "cards": summary.cards(run),
        "has_steps": bool(run.log.train),
        "last": last,
        "earlier": earlier,
        "sheets": sheets,
        "evaluation": run.evaluation,
        "metrics": tables.metric_tables(run.evaluation) if run.evaluation else [],
        "others": [(item.name, tables.metric_tables(item)) for item in run.evaluations[1:]],
        "evaluations": tables.evaluations_table(run.evaluations) if len(run.evaluations) > 1 else None,
        "plots": _plots(main, f"{uid}a"),
        "more_plots": _plots(more, f"{uid}b"),
        "events": tables.events_table(run),
        "config": tables.settings_tables(run.config),
        "data": tables.mapping_table("Data", run.data),
        "world": tables.mapping_table("World", run.world),
        "checkpoints": tables.checkpoints_table(run.checkpoints),
    }


def _plots(charts: Iterable[Chart], uid: str) -> list[Plot]:
    from markupsafe import Markup

    from collagan_dist.report import chart_svg

    return [
        Plot(
            title=chart.title,
            unit=chart.unit,
            legend=tuple((one.label, chart_svg.colour_of(one), chart_svg.dash_of(one)) for one in chart.series),
            # The one place without escaping: matplotlib's own output, whose texts it escapes itself.
            svg=Markup(chart_svg.draw(chart, f"{uid}{index}")),
            description=chart_svg.describe(chart),
        )
        for index, chart in enumerate(charts)
    ]


def _figures(run: RunData) -> tuple[Figure | None, list[Figure], list[Figure]]:
    """The last grid, a few earlier ones, the sheets of evaluation/. What cannot be read becomes a note of the log."""
    last = _grid(run, *run.grids[-1], limit=pictures.LARGE) if run.grids else None
    before = run.grids[:-1]
    chosen = [before[index] for index in pictures.evenly(len(before), pictures.EARLIER)]
    earlier = [_grid(run, step, path, limit=pictures.SMALL) for step, path in chosen]
    sheets = [_figure(run, path, pictures.LARGE, f"Evaluation: {path.stem}", path.stem) for path in run.sheets]
    return last, [figure for figure in earlier if figure], [figure for figure in sheets if figure]


def _grid(run: RunData, step: int, path: Path, limit: int) -> Figure | None:
    columns = f" Columns from left to right: {', '.join(run.columns)}." if run.columns else ""
    return _figure(run, path, limit, f"Sample pictures at step {step:,}.{columns}", f"Step {step:,}", run.columns)


def _figure(
    run: RunData, path: Path, limit: int, alt: str, caption: str, columns: tuple[str, ...] = ()
) -> Figure | None:
    try:
        return Figure(pictures.embed(path, limit), alt, caption, columns)
    except (OSError, ValueError) as error:
        run.log.notes.append(f"{path.name} cannot be shown: {error}")
        return None
