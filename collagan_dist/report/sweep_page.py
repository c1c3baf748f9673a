"""What the page shows of a sweep: the content of sweep.html."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from collagan_dist.errors import DataError
from collagan_dist.report import sensitivity, sweep_charts, sweep_summary, sweep_tables
from collagan_dist.report.parallel_coordinates import parallel_coordinates
from collagan_dist.report.pareto_chart import front_chart
from collagan_dist.report.pictures import Figure
from collagan_dist.report.run_data import read_run
from collagan_dist.report.run_page import last_grid
from collagan_dist.report.sweep_data import SweepData, read_sweep
from collagan_dist.runs.layout import RunPaths


def sweep_content(folder: Path) -> dict[str, Any]:
    """Return the content of page.html for a sweep's folder."""
    sweep = read_sweep(folder)
    figures, notes = _figures(sweep)
    return {"title": sweep.name, "sweep": {**_texts(sweep, notes), **_charts(sweep)}, "figures": figures}


def _texts(sweep: SweepData, notes: Sequence[str]) -> dict[str, Any]:
    return {
        "name": sweep.name,
        "about": sweep.about,
        "state": sweep_summary.state(sweep),
        "headline": sweep_summary.headline(sweep),
        "cards": sweep_summary.cards(sweep),
        "main": sweep.main.label,
        "stopped": any(trial.status == "stopped" for trial in sweep.trials),
        "constrained": bool(sweep.constraints),
        "repeated": len(sweep.searched) < len(sweep.trials),
        "best": sweep_tables.best_table(sweep),
        "train_options": sweep_tables.train_options(sweep),
        "failed": sweep_tables.failed_table(sweep),
        "table": sweep_tables.trials_table(sweep),
        "metrics": sweep_tables.metrics_table(sweep),
        "warnings": (*sweep.warnings, *sweep.left_out),
        "notes": [*sweep.notes, *notes],
        "settings": sweep_tables.settings_table(sweep),
        "space": sweep_tables.space_table(sweep),
    }


def _charts(sweep: SweepData) -> dict[str, Any]:
    main, others = sweep.main, sweep.metrics[1:]
    by_key = [sensitivity.sensitivity(sweep, key, main) for key in sweep.keys]
    # A key that no trial has is not worth an empty chart.
    by_key = [one for one in by_key if one.points]
    over_time = (sweep_charts.history_chart, sweep_charts.course_chart)
    return {
        "charts": list(filter(None, (chart(sweep, main) for chart in over_time))),
        "more_charts": list(filter(None, (chart(sweep, metric) for metric in others for chart in over_time))),
        "parallel": parallel_coordinates(sweep),
        "sensitivity": [(sweep_charts.sensitivity_chart(sweep, one), one.sentences) for one in by_key],
        "verdict": sensitivity.verdict(by_key, sweep),
        "fronts": list(filter(None, (front_chart(sweep, main, metric) for metric in others))),
        "importance": sweep_charts.importance_charts(sweep),
    }


def _figures(sweep: SweepData) -> tuple[list[Figure], list[str]]:
    """Return the last pictures of the best trial and of the paper's, and notes on damaged ones."""
    figures: list[Figure] = []
    notes: list[str] = []
    best, paper = sweep.best_trial, sweep.paper_trial
    trials = [(best, "the best")] if best is not None else []
    trials += [(paper, "the paper's λ")] if paper is not None and paper is not best else []
    for trial, description in trials:
        folder = sweep.folder(trial)
        # Trials' folders are large: people copy a sweep without them.
        if not RunPaths(folder).exists():
            continue
        try:
            run = read_run(folder)
        except DataError as error:
            notes.append(f"The pictures of trial {trial.number} are left out: {error}")
            continue
        figure = last_grid(run)
        if figure is not None:
            name = f"Trial {trial.number}, {description}"
            figures.append(replace(figure, caption=f"{name}: {figure.caption.lower()}", alt=f"{name}. {figure.alt}"))
        # No picture yet is no damage.
        elif run.grids:
            notes += [note for note in run.log.notes if "cannot be shown" in note]
    return figures, notes
