"""What the page shows of runs: the content of run.html for each, and of the comparison of several in page.html."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collagan_dist.report import pictures, summary, tables
from collagan_dist.report.charts import Chart, comparison_charts, eval_charts, train_charts
from collagan_dist.report.pictures import Figure
from collagan_dist.report.run_data import RunData, read_run
from collagan_dist.runs.thinning import spread_evenly

# Pictures of earlier steps, evenly spread.
_MAX_EARLIER = 6


@dataclass(frozen=True)
class DrawnChart:
    """A drawn chart: its SVG, and its legend as (label, colour index, dash pattern)."""

    title: str
    unit: str
    legend: tuple[tuple[str, int, str], ...]
    svg: Any
    description: str


def runs_content(folders: Sequence[Path]) -> dict[str, Any]:
    """Return the content of page.html for one run, or for several and their comparison."""
    runs, names = [read_run(folder) for folder in folders], _unique_names(folders)
    several = len(runs) > 1
    return {
        "title": f"Comparison of {len(runs)} runs" if several else names[0],
        "runs": [_run_content(run, name, f"r{index}") for index, (run, name) in enumerate(zip(runs, names, strict=True))],
        "comparison": _comparison_content(runs, names) if several else None,
    }  # fmt: skip


def last_grid(run: RunData) -> Figure | None:
    """Return the newest sample pictures; None where there are none or they are damaged, which becomes a note of the log."""
    return _grid_figure(run, *run.grids[-1], max_width=pictures.LARGE) if run.grids else None


def _unique_names(folders: Sequence[Path]) -> list[str]:
    names = [folder.name for folder in folders]
    # Folder names are enough where they differ.
    if len(set(names)) == len(names):
        return names
    common = os.path.commonpath(folders)
    return [os.path.relpath(folder, common) for folder in folders]


def _comparison_content(runs: Sequence[RunData], names: Sequence[str]) -> dict[str, Any]:
    charts = comparison_charts(runs, names)
    # Their own prefixes keep ids of charts apart from those of the runs below.
    return {
        "results": summary.comparison_table(runs, names),
        "differences": summary.differences_table(runs, names),
        "charts": _draw((chart for chart in charts if chart.main), "cmp"),
        "more_charts": _draw((chart for chart in charts if not chart.main), "cmq"),
    }


def _run_content(run: RunData, name: str, uid: str) -> dict[str, Any]:
    train, evals = train_charts(run), eval_charts(run)
    main = [chart for chart in evals + train if chart.main]
    more = [chart for chart in train + evals if not chart.main]
    # Pictures come before the events: a damaged one becomes a note there.
    figures = _figures(run)
    return {
        "id": uid,
        "name": name,
        "summary": summary.summary(run),
        "headline": summary.headline(run),
        "warnings": run.warnings,
        "cards": summary.cards(run),
        "has_steps": run.log.train.count > 0,
        **figures,
        "evaluation": run.evaluation,
        "metrics": tables.metric_tables(run.evaluation) if run.evaluation else [],
        "others": [(item.name, tables.metric_tables(item)) for item in run.evaluations[1:]],
        "evaluations": tables.evaluations_table(run.evaluations) if len(run.evaluations) > 1 else None,
        "charts": _draw(main, f"{uid}a"),
        "more_charts": _draw(more, f"{uid}b"),
        "events": tables.events_table(run),
        "config": tables.settings_tables(run.config),
        "data": tables.mapping_table("Data", run.data),
        "world": tables.mapping_table("World", run.world),
        "checkpoints": tables.checkpoints_table(run.checkpoints),
    }


def _draw(charts: Iterable[Chart], uid: str) -> list[DrawnChart]:
    # Imported here: `collagan --help` must not wait for them.
    from markupsafe import Markup

    from collagan_dist.report import chart_svg

    return [
        DrawnChart(
            title=chart.title,
            unit=chart.unit,
            legend=tuple((one.label, chart_svg.colour_index(one), chart_svg.dash_pattern(one)) for one in chart.series),
            # Not escaped again: matplotlib escapes all texts of its SVG itself.
            svg=Markup(chart_svg.draw_chart(chart, f"{uid}{index}")),
            description=chart_svg.describe(chart),
        )
        for index, chart in enumerate(charts)
    ]


def _figures(run: RunData) -> dict[str, Any]:
    last, before = last_grid(run), run.grids[:-1]
    chosen = [before[index] for index in spread_evenly(len(before), _MAX_EARLIER)]
    earlier = [_grid_figure(run, step, path, max_width=pictures.SMALL) for step, path in chosen]
    evaluations = [
        _figure(run, path, pictures.LARGE, f"Evaluation: {path.stem}", path.stem) for path in run.evaluation_pictures
    ]
    return {
        "last": last,
        "earlier": [figure for figure in earlier if figure],
        "evaluation_figures": [figure for figure in evaluations if figure],
    }


def _grid_figure(run: RunData, step: int, path: Path, max_width: int) -> Figure | None:
    columns = f" Columns from left to right: {', '.join(run.columns)}." if run.columns else ""
    return _figure(run, path, max_width, f"Sample pictures at step {step:,}.{columns}", f"Step {step:,}", run.columns)


def _figure(
    run: RunData, path: Path, max_width: int, alt: str, caption: str, columns: tuple[str, ...] = ()
) -> Figure | None:
    try:
        return Figure(pictures.embed(path, max_width), alt, caption, columns)
    # One damaged picture must not keep the page from being written.
    except (OSError, ValueError) as error:
        run.log.notes.append(f"{path.name} cannot be shown: {error}")
        return None
