"""Runs as rows of a table: what each is, how far it has come, its last metrics, and its settings that are not the preset's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from collagan_dist.errors import DataError
from collagan_dist.report import summary
from collagan_dist.report.run_data import RunData, read_run
from collagan_dist.runs.layout import RunPaths

Row = dict[str, Any]

_LEVELS = 3  # of folders below the one that is named: a sweep's trials are at the second
_NAMED_BY_KEY = ("weighted/",)  # the losses again, times λ


def run_table(folder: Path) -> list[Row]:
    """Return a row for `folder`, or for each run up to three levels below it, in the order of their paths.

    Keys: name, path, model, preset, step, steps (planned); split, hole, blend and samples of the evaluation; metrics under
    their paths (psnr_hole, dice/mean, loss/total); settings that differ from the preset under dotted keys.
    Raises DataError where there is no run, or one of its files is damaged; ConfigError for a config.yaml that is no YAML.
    """
    found = [folder] if _is_run(folder) else _runs_below(folder)
    if not found:
        raise DataError(f"{folder}: there is no run in it. Name a folder that `collagan train` wrote, or one above it.")
    return [run_row(path) for path in found]


def run_row(folder: Path) -> Row:
    """Return the row of one run (see run_table). Raises DataError."""
    run = read_run(folder)
    preset, changed = run.preset
    return {
        "name": run.name, "path": str(run.path), "model": summary.model_name(run), "preset": preset,
        "step": run.steps_done, "steps": run.steps_planned, **_metrics(run),
        **{key: own for key, (own, _) in changed.items()},
    }  # fmt: skip


def _metrics(run: RunData) -> Row:
    curves = run.log.train.curves
    row: Row = {
        key: curve.last
        for key, curve in curves.items()
        if math.isfinite(curve.last) and not key.startswith(_NAMED_BY_KEY)
    }
    if (item := run.evaluation) is not None:
        about = {
            "split": item.split,
            "hole": item.hole or "none",
            "blend": item.blend or "none",
            "samples": item.samples,
        }
        row = about | item.values | row
    return row


def _is_run(folder: Path) -> bool:
    """Whether this is a run folder, not an exported one, which has a config.yaml too."""
    paths = RunPaths(folder)
    return paths.exists() and (paths.checkpoints.is_dir() or paths.metrics_log.is_file())


def _runs_below(folder: Path) -> list[Path]:
    patterns = ["/".join(["*"] * level) for level in range(1, _LEVELS + 1)]
    return sorted(
        path for pattern in patterns for path in folder.glob(pattern) if _is_run(path) and _visible(path, folder)
    )


def _visible(path: Path, folder: Path) -> bool:
    # Names with a dot in front are files that are still being written.
    return not any(part.startswith(".") for part in path.relative_to(folder).parts)
