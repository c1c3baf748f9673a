"""Reading a run folder: everything the page shows about one run, as plain values."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from collagan_dist.errors import DataError
from collagan_dist.report.evaluation import EvaluationScores, parse_evaluation
from collagan_dist.runs.layout import RunPaths, step_of
from collagan_dist.runs.metrics_log import MetricsLog, read_metrics_log


@dataclass(frozen=True)
class CheckpointInfo:
    name: str
    step: int
    bytes: int
    complete: bool


@dataclass(frozen=True)
class RunData:
    """`evaluations` begins with the headline one (metrics.json), when there is any."""

    name: str
    path: Path
    config: dict[str, Any]
    data: dict[str, Any]
    world: dict[str, Any]
    log: MetricsLog
    evaluations: tuple[EvaluationScores, ...]
    grids: tuple[tuple[int, Path], ...]
    columns: tuple[str, ...]
    sheets: tuple[Path, ...]
    checkpoints: tuple[CheckpointInfo, ...]

    @property
    def evaluation(self) -> EvaluationScores | None:
        """The headline evaluation, or the last one logged while training."""
        if self.evaluations:
            return self.evaluations[0]
        return parse_evaluation(self.log.evals[-1]) if self.log.evals else None

    @property
    def tasks(self) -> tuple[str, ...]:
        tasks = section(self.config, "model").get("tasks")
        return tuple(str(task) for task in tasks) if isinstance(tasks, (list, tuple, dict)) else ()

    @property
    def steps_done(self) -> int:
        steps = [row["step"] for row in self.log.train[-1:]] + [point.step for point in self.checkpoints[-1:]]
        return max(steps, default=0)

    @property
    def steps_planned(self) -> int | None:
        """`schedule.steps`, which wins over epochs: 20 epochs are ceil(20 N / B) steps."""
        schedule = section(self.config, "schedule")
        if isinstance(schedule.get("steps"), int):
            return int(schedule["steps"])
        epochs, batch = schedule.get("epochs"), schedule.get("batch")
        split = section(self.config, "data").get("split", "train")
        samples = section(self.data, "splits").get(split)
        if isinstance(samples, dict):
            samples = samples.get("samples")
        if all(isinstance(value, (int, float)) and value > 0 for value in (epochs, batch, samples)):
            return math.ceil(epochs * samples / batch)  # type: ignore[operator]
        return None


def read_run(path: Path) -> RunData:
    """The run in folder `path`."""
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder. Name the folder of a run, the one that holds config.yaml.")
    paths = RunPaths(path)
    if not paths.exists():
        raise DataError(f"{path}: no config.yaml in it, so this is not the folder of a run. {_nearby(path)}")
    return RunData(
        name=path.resolve().name,
        path=path,
        config=_read_yaml(paths.config),
        data=_read_json(paths.data),
        world=_read_json(paths.world),
        log=read_metrics_log(path),
        evaluations=_evaluations(paths),
        grids=_grids(paths.grids),
        columns=_columns(paths.grid_columns),
        sheets=tuple(sorted(_visible(paths.evaluations, "*.png"), key=_sheet_rank)),
        checkpoints=_checkpoints(paths),
    )


def section(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    """`mapping[key]` where it is a mapping, else an empty one."""
    value = mapping.get(key)
    return value if isinstance(value, dict) else {}


def _nearby(path: Path) -> str:
    """Point to run folders one or two levels below: a sweep's trials, a folder of runs."""
    below = sorted(found.parent for pattern in ("*/config.yaml", "*/*/config.yaml") for found in path.glob(pattern))
    if not below:
        return "Name the folder that `collagan train` wrote."
    names = ", ".join(str(found) for found in below[:5])
    return f"These below it are: {names}{', …' if len(below) > 5 else ''}. Name those."


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as YAML ({error}). Restore the file the run wrote.") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: a mapping of settings is expected. Restore the file the run wrote.")
    return value


def _load_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes(), parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({error}). Write it again, or remove it.") from error


def _read_json(path: Path) -> dict[str, Any]:
    """The object in `path`; an empty one when the file is missing."""
    if not path.is_file():
        return {}
    value = _load_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{path}: a JSON object is expected. Write it again, or remove it.")
    return value


def _columns(path: Path) -> tuple[str, ...]:
    value = _load_json(path) if path.is_file() else []
    return tuple(str(name) for name in value) if isinstance(value, list) else ()


def _visible(folder: Path, pattern: str) -> list[Path]:
    """Sorted matches without dot-files, which are still being written."""
    return sorted(found for found in folder.glob(pattern) if not found.name.startswith("."))


def _evaluations(paths: RunPaths) -> tuple[EvaluationScores, ...]:
    """metrics.json first, then the others of evaluation/ that tell of something else."""
    first = [paths.headline_metrics, paths.evaluations / "metrics.json"]
    files = [file for file in first if file.is_file()]
    files += [file for file in _visible(paths.evaluations, "*.json") if file not in files]
    found: dict[tuple[str, ...], EvaluationScores] = {}
    for file in files:
        item = parse_evaluation(_read_json(file))
        if item.values:
            found.setdefault(item.subject, item)
    # Without metrics.json the headline is one with training's kind of holes, before positions and blended ones.
    ordered = list(found.values())
    return tuple(ordered if files[:1] == first[:1] else sorted(ordered, key=_rank))


def _rank(item: EvaluationScores) -> tuple[bool, bool]:
    return item.hole.startswith("O"), bool(item.blend)


def _sheet_rank(path: Path) -> tuple[bool, bool]:
    """The same by the file's name: test-block, test-O1-blended."""
    return "-O" in path.stem, path.stem.endswith("-blended")


def _grids(folder: Path) -> tuple[tuple[int, Path], ...]:
    steps = ((step_of(file.stem), file) for file in _visible(folder, "*.png"))
    return tuple(sorted((step, file) for step, file in steps if step is not None))


def _checkpoints(paths: RunPaths) -> tuple[CheckpointInfo, ...]:
    points, committed = [], paths.committed_steps()
    for step in paths.steps_saved():
        path = paths.checkpoint(step)
        total = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        points.append(CheckpointInfo(path.name, step, total, step in committed))
    return tuple(points)
