"""What the page shows of runs: the content of run.html for each, and of the comparison of several in page.html."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from collagan_dist import shell
from collagan_dist.report import pictures, summary, tables
from collagan_dist.report.charts import comparison_charts, eval_charts, train_charts
from collagan_dist.report.line_chart import Chart, constants
from collagan_dist.report.pictures import Figure
from collagan_dist.report.run_data import RunData, read_run
from collagan_dist.report.vega import VegaChart
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.thinning import spread_evenly

# Pictures of earlier steps, evenly spread.
_MAX_EARLIER = 6
# Charts beside the newest pictures, about as high as these, and before the table of a comparison.
_BESIDE, _BEFORE_TABLE = 2, 3


def runs_content(folders: Sequence[Path]) -> dict[str, Any]:
    """Return the content of page.html for one run, or for several and their comparison."""
    runs, names = [read_run(folder) for folder in folders], _unique_names(folders)
    several = len(runs) > 1
    return {
        "title": f"Comparison of {len(runs)} runs" if several else f"{names[0]}: {summary.title(runs[0])}",
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
    shown = [chart for chart in charts if not chart.constant]
    main = _draw(chart for chart in shown if chart.seen_at_once)
    return {
        "headline": summary.comparison_headline(runs, names),
        "results": summary.comparison_table(runs, names),
        "differences": summary.differences_table(runs, names),
        "first_charts": main[:_BEFORE_TABLE],
        "charts": main[_BEFORE_TABLE:],
        "more_charts": _draw(chart for chart in shown if not chart.seen_at_once),
        "constants": constants(chart for chart in charts if chart.constant and chart.main),
    }


def _run_content(run: RunData, name: str, uid: str) -> dict[str, Any]:
    train, evals = train_charts(run), eval_charts(run)
    # The result and what is learned from first, the other metrics after them.
    ordered = [*evals[:1], *train[:1], *evals[1:], *train[1:]]
    shown = [chart for chart in ordered if not chart.constant]
    main = _draw(chart for chart in shown if chart.seen_at_once)
    # Pictures come before the events: a damaged one becomes a note there.
    figures = _figures(run)
    beside = _BESIDE if figures["last"] else 0
    return {
        "id": uid,
        "name": name,
        "title": summary.title(run),
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
        "first_charts": main[:beside],
        "charts": main[beside:],
        "more_charts": _draw(chart for chart in shown if not chart.seen_at_once),
        "constants": constants(chart for chart in ordered if chart.constant),
        "events": tables.events_table(run),
        "preset": run.preset[0],
        "changed": tables.changed_settings_table(run),
        "config": tables.settings_tables(run.config),
        "data": tables.mapping_table("Data", run.data),
        "world": tables.mapping_table("World", run.world),
        "checkpoints": tables.checkpoints_table(run.checkpoints),
        "versions": summary.versions(run),
        "made_by": str(run.world.get("command", "")),
        "continued_by": shell.collagan("train", RunPaths(run.path).config, "--out", run.path),
    }


def _draw(charts: Iterable[Chart]) -> list[VegaChart]:
    return [chart.drawn() for chart in charts]


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
