"""From run folders to one HTML file that needs nothing but itself."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from collagan_dist.errors import DataError
from collagan_dist.report import pictures, summary, tables
from collagan_dist.report.charts import Chart, comparison_charts, eval_charts, train_charts
from collagan_dist.report.reproduction import is_reproduction, read_reproduction
from collagan_dist.report.run_folder import Run, read_run

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Figure:
    """A picture with what it shows, in words."""

    picture: pictures.Picture
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
    """Write one page about the run folders `paths`, or about one reproduction, and return where it is.

    Without `out`: report.html in the run folder, or in the folder that several runs share.
    """
    folders = list(dict.fromkeys(Path(path).resolve() for path in paths))
    if not folders:
        raise DataError("No run folder was named. Name at least one folder that holds a config.yaml.")
    if reproductions := [folder for folder in folders if is_reproduction(folder)]:
        if len(folders) > 1:
            raise DataError(
                f"{reproductions[0]}: is a reproduction, which is shown on a page of its own. Name it alone."
            )
        text = _render_reproduction(reproductions[0])
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
        return folders[0] / "report.html"
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
    """page.html with its content."""
    import jinja2

    loader = jinja2.FileSystemLoader(_HERE)
    env = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
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
    return _fill(title=found.name, runs=[], comparison=None, reproduction=found, figures=figures)


def _render(runs: Sequence[Run], names: Sequence[str]) -> str:
    several = len(runs) > 1
    return _fill(
        title=f"Comparison of {len(runs)} runs" if several else names[0],
        reproduction=None,
        runs=[_run_view(run, name, f"r{index}") for index, (run, name) in enumerate(zip(runs, names, strict=True))],
        comparison=_comparison_view(runs, names) if several else None,
    )


def _comparison_view(runs: Sequence[Run], names: Sequence[str]) -> dict[str, Any]:
    charts = comparison_charts(runs, names)
    return {
        "results": summary.comparison_table(runs, names),
        "differences": summary.differences_table(runs, names),
        "plots": _plots((chart for chart in charts if chart.main), "cmp"),
        "more_plots": _plots((chart for chart in charts if not chart.main), "cmq"),
    }


def _run_view(run: Run, name: str, uid: str) -> dict[str, Any]:
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

    from collagan_dist.report import plots

    return [
        Plot(
            title=chart.title,
            unit=chart.unit,
            legend=tuple((one.label, plots.colour_of(one), plots.dash_of(one)) for one in chart.series),
            # The one place without escaping: matplotlib's own output, whose texts it escapes itself.
            svg=Markup(plots.draw(chart, f"{uid}{index}")),
            description=plots.describe(chart),
        )
        for index, chart in enumerate(charts)
    ]


def _figures(run: Run) -> tuple[Figure | None, list[Figure], list[Figure]]:
    """The last grid, a few earlier ones, the sheets of evaluation/. What cannot be read becomes a note of the log."""
    last = _grid(run, *run.grids[-1], limit=pictures.LARGE) if run.grids else None
    before = run.grids[:-1]
    chosen = [before[index] for index in pictures.evenly(len(before), pictures.EARLIER)]
    earlier = [_grid(run, step, path, limit=pictures.SMALL) for step, path in chosen]
    sheets = [_figure(run, path, pictures.LARGE, f"Evaluation: {path.stem}", path.stem) for path in run.sheets]
    return last, [figure for figure in earlier if figure], [figure for figure in sheets if figure]


def _grid(run: Run, step: int, path: Path, limit: int) -> Figure | None:
    columns = f" Columns from left to right: {', '.join(run.columns)}." if run.columns else ""
    return _figure(run, path, limit, f"Sample pictures at step {step:,}.{columns}", f"Step {step:,}", run.columns)


def _figure(run: Run, path: Path, limit: int, alt: str, caption: str, columns: tuple[str, ...] = ()) -> Figure | None:
    try:
        return Figure(pictures.embed(path, limit), alt, caption, columns)
    except (OSError, ValueError) as error:
        run.log.notes.append(f"{path.name} cannot be shown: {error}")
        return None
