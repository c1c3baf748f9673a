"""A run folder as the report reads it: configuration, metrics, evaluations, pictures and checkpoints, as plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import RootModel

from collagan_dist import structured
from collagan_dist.config import strict_yaml
from collagan_dist.config.effects import warnings_of
from collagan_dist.config.load import changed_settings, preset_settings, validate_config
from collagan_dist.config.tree import Config
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.report.evaluation import EvaluationScores, parse_evaluation
from collagan_dist.runs.evaluation_name import describe_variant
from collagan_dist.runs.layout import RunPaths, step_of
from collagan_dist.runs.metrics_log import MetricsLog, drawable, read_metrics_log, undrawable_note

_REPAIR_HINT = "Write it again, or remove it"


@dataclass(frozen=True)
class CheckpointInfo:
    """What the page shows of a checkpoint; `complete` is whether it was committed."""

    step: int
    bytes: int
    complete: bool


@dataclass(frozen=True)
class RunData:
    """Everything the page shows about one run. `evaluations` begins with the headline one, where there is one.

    `grids` are (step, picture file) with `columns` as their headings; `evaluation_pictures` are those of evaluation/.
    """

    name: str
    path: Path
    config: dict[str, Any]
    data: dict[str, Any]
    world: dict[str, Any]
    log: MetricsLog
    evaluations: tuple[EvaluationScores, ...]
    grids: tuple[tuple[int, Path], ...]
    columns: tuple[str, ...]
    evaluation_pictures: tuple[Path, ...]
    checkpoints: tuple[CheckpointInfo, ...]

    @property
    def evaluation(self) -> EvaluationScores | None:
        """The headline evaluation, or the last one logged in training."""
        if self.evaluations:
            return self.evaluations[0]
        return self.logged[-1] if self.logged else None

    @cached_property
    def logged(self) -> tuple[EvaluationScores, ...]:
        """The evaluations of the log by step."""
        return tuple(map(parse_evaluation, self.log.evals))

    @property
    def tasks(self) -> tuple[str, ...]:
        # Not validated, so it may be anything or missing.
        tasks = section(self.config, "model").get("tasks")
        return tuple(str(task) for task in tasks) if isinstance(tasks, (list, tuple, dict)) else ()

    @property
    def steps_done(self) -> int:
        # The log is behind the checkpoints where log.every is larger than checkpoint.every.
        return max([self.log.train.last_step, *(point.step for point in self.checkpoints[-1:])])

    @cached_property
    def warnings(self) -> list[str]:
        """What looks like a mistake in the settings, as an adversarial loss that never begins."""
        settings, steps = self._valid_config, self.steps_planned
        return warnings_of(settings, steps) if settings and steps is not None else []

    @cached_property
    def preset(self) -> tuple[str | None, dict[str, tuple[Any, Any]]]:
        """The nearest preset, and (own, preset's) of the dotted settings that differ from it."""
        if self._valid_config is None:
            return None, {}
        name, changed = changed_settings(self._valid_config)
        theirs = preset_settings(name, self._valid_config)
        return name, {key: (value, theirs.get(key)) for key, value in changed.items()}

    @cached_property
    def _valid_config(self) -> Config | None:
        """None for settings of another version, which are shown and not judged."""
        try:
            return validate_config(self.config, "config.yaml")
        except (ConfigError, ValueError, TypeError):
            return None

    @property
    def steps_planned(self) -> int | None:
        """The length of the training; None where the folder does not say."""
        schedule = section(self.config, "schedule")
        # schedule.steps wins over epochs, as in training.
        if isinstance(schedule.get("steps"), int):
            return int(schedule["steps"])
        epochs, batch = schedule.get("epochs"), schedule.get("batch")
        split = section(self.config, "data").get("split", "train")
        samples = section(self.data, "splits").get(split)
        # Either the number itself or a mapping that holds it.
        if isinstance(samples, dict):
            samples = samples.get("samples")
        if all(isinstance(value, (int, float)) and value > 0 for value in (epochs, batch, samples)):
            return math.ceil(epochs * samples / batch)  # type: ignore[operator]
        return None


def read_run(path: Path) -> RunData:
    """Read the run in folder `path`. Raises DataError where it is no run folder, or one of its files is damaged."""
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder. Name the folder of a run, the one that holds config.yaml.")
    paths = RunPaths(path)
    if not paths.exists():
        raise DataError(f"{path}: no config.yaml in it, so this is not the folder of a run. {_nearby(path)}")
    log = read_metrics_log(path)
    return RunData(
        name=path.resolve().name,
        path=path,
        config=read_settings(paths.config),
        data=_read_optional(paths.data, log.notes),
        world=_read_optional(paths.world, log.notes),
        log=log,
        evaluations=_read_evaluations(paths, log.notes),
        grids=_find_grids(paths.grids),
        columns=_read_columns(paths.grid_columns),
        evaluation_pictures=tuple(sorted(_visible(paths.evaluations, "*.png"), key=_picture_rank)),
        checkpoints=_find_checkpoints(paths),
    )


def section(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    """Return `mapping[key]` where it is a mapping, else an empty one."""
    value = mapping.get(key)
    return value if isinstance(value, dict) else {}


def read_json_object(path: Path, notes: list[str], mend: str = _REPAIR_HINT) -> dict[str, Any]:
    """Read a JSON object. Raises DataError, which ends with `mend`.

    Numbers that cannot be drawn, such as the NaN that other programs write, are left out, and a note says so.
    """
    try:
        value, undrawable = drawable(structured.read_json(path, nan=True), structured.MAX_DEPTH + 2)
    except (OSError, structured.Malformed) as error:
        raise DataError(f"{path}: not readable as JSON ({error}). {mend}.") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object. {mend}.")
    notes += undrawable_note(path.name, undrawable)
    return value


def _read_optional(path: Path, notes: list[str]) -> dict[str, Any]:
    return read_json_object(path, notes) if path.is_file() else {}


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a config.yaml. Raises ConfigError."""
    # Not validated as a configuration: runs of older and newer versions are shown too.
    hint = "restore the file that the run wrote"
    return strict_yaml.load(strict_yaml.read_text(path, "configuration", hint), str(path))[0]


class _Columns(RootModel[tuple[str, ...]]):
    """The headings of grids."""


def _read_columns(path: Path) -> tuple[str, ...]:
    return structured.read(path, _Columns, DataError, _REPAIR_HINT).root if path.is_file() else ()


def _nearby(path: Path) -> str:
    """Name the run folders one or two levels below: a sweep's trials, a folder of runs."""
    # People often name the folder of all their runs.
    below = sorted(found.parent for pattern in ("*/config.yaml", "*/*/config.yaml") for found in path.glob(pattern))
    if not below:
        return "Name the folder that `collagan train` wrote."
    names = ", ".join(str(found) for found in below[:5])
    return f"These below it are: {names}{', …' if len(below) > 5 else ''}. Name those."


def _visible(folder: Path, pattern: str) -> list[Path]:
    # Names with a dot in front are files that are still being written.
    return sorted(found for found in folder.glob(pattern) if not found.name.startswith("."))


def _read_evaluations(paths: RunPaths, notes: list[str]) -> tuple[EvaluationScores, ...]:
    """Return metrics.json first, then the files of evaluation/ about other subjects."""
    headline = [paths.headline_metrics, paths.evaluations / "metrics.json"]
    files = [file for file in headline if file.is_file()]
    files += [file for file in _visible(paths.evaluations, "*.json") if file not in files]
    found: dict[tuple[str, ...], EvaluationScores] = {}
    for file in files:
        item = replace(parse_evaluation(read_json_object(file, notes)), variant=describe_variant(file.stem))
        if item.values:
            # metrics.json repeats one file of evaluation/.
            found.setdefault(item.subject, item)
    ordered = list(found.values())
    if files[:1] == headline[:1]:
        return tuple(ordered)
    # Without metrics.json the headline is an evaluation with the holes of training, not one of O1 to O6, blended or of other data.
    return tuple(sorted(ordered, key=lambda item: (item.variant, item.hole.startswith("O"), bool(item.blend))))


def _picture_rank(path: Path) -> tuple[bool, bool]:
    # The order of the evaluations, from the file's name: test-block, test-O1, test-O1-blended.
    return "-O" in path.stem, path.stem.endswith("-blended")


def _find_grids(folder: Path) -> tuple[tuple[int, Path], ...]:
    steps = ((step_of(file.stem), file) for file in _visible(folder, "*.png"))
    return tuple(sorted((step, file) for step, file in steps if step is not None))


def _find_checkpoints(paths: RunPaths) -> tuple[CheckpointInfo, ...]:
    points, committed = [], paths.committed_steps()
    for step in paths.steps_saved():
        size = sum(file.stat().st_size for file in paths.checkpoint(step).rglob("*") if file.is_file())
        points.append(CheckpointInfo(step, size, step in committed))
    return tuple(points)
