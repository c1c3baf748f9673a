"""Reading the folder that `collagan sweep` writes: its trials, what was searched, what came of it, as plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collagan_dist.errors import DataError
from collagan_dist.report.evaluation import is_number
from collagan_dist.report.trial_data import MEND, TrialData, Value, is_choice, read_trials, with_curves, word_of
from collagan_dist.runs.layout import RunPaths

VERSION = 1


@dataclass(frozen=True)
class Metric:
    """`sign` is +1 where larger is better, -1 where smaller is."""

    name: str
    sign: int


@dataclass(frozen=True)
class Key:
    """One searched key. `label` is its name without what all searched keys share; `paper` is the paper's value.

    `choices` are the values of a key that has no order, in words; `low` and `high` the ends of one that has.
    """

    name: str
    label: str
    kind: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    paper: Value = None

    @property
    def log(self) -> bool:
        return self.kind == "loguniform"

    @property
    def ordered(self) -> bool:
        return not self.choices


@dataclass(frozen=True)
class Side:
    """One side of a confirmation: a value for each seed; `sd` None with a single one."""

    values: tuple[float, ...]
    mean: float
    sd: float | None


@dataclass(frozen=True)
class Confirmed:
    """The best trial and the paper's values trained anew over `seeds` seeds; `p` None where no test was possible."""

    seeds: int
    metric: str
    paper: Side
    best: Side
    trial: int | None
    difference: float
    p: float | None


@dataclass(frozen=True)
class SweepData:
    """`rungs` are samples, the last a whole run; `best` and `front` name trials; `notes` say what could not be read."""

    name: str
    path: Path
    about: str
    status: str
    scheduler: str
    search: str
    asked: int | None
    seed: int | None
    metrics: tuple[Metric, ...]
    rungs: tuple[int, ...]
    keys: tuple[Key, ...]
    trials: tuple[TrialData, ...]
    best: int | None
    front: tuple[int, ...]
    importance: Mapping[str, Mapping[str, float]]
    samples_trained: float | None
    seconds: float | None
    confirmed: Confirmed | None
    columns: tuple[str, ...] = ()
    """The metrics of trials.csv, in its order."""
    notes: tuple[str, ...] = ()

    @property
    def main(self) -> Metric:
        return self.metrics[0]

    @property
    def searched(self) -> tuple[TrialData, ...]:
        """All but the repetitions over other seeds, which would count a point of the space several times."""
        return tuple(trial for trial in self.trials if trial.role != "confirm")

    @property
    def best_trial(self) -> TrialData | None:
        return next((trial for trial in self.trials if trial.number == self.best), None)

    @property
    def paper_trial(self) -> TrialData | None:
        return next((trial for trial in self.trials if trial.role == "paper"), None)

    def is_whole(self, trial: TrialData) -> bool:
        """Whether it trained as long as a whole run."""
        if self.rungs and trial.samples is not None:
            return trial.samples >= self.rungs[-1]
        return trial.status == "done"

    def folder(self, trial: TrialData) -> Path:
        return self.path / "trials" / f"t{trial.number:03d}"


def is_sweep(folder: Path) -> bool:
    return (folder / "sweep.json").is_file() and not RunPaths(folder).exists()


def read_sweep(folder: Path) -> SweepData:
    """Raises DataError when sweep.json or trials.csv are none that a sweep wrote; a trial's own folder is forgiven."""
    path = folder / "sweep.json"
    found = _load(path)
    try:
        metrics = tuple(Metric(str(one["name"]), {"max": 1, "min": -1}[one["mode"]]) for one in found["metrics"])
        spaces = {str(name): dict(space) for name, space in found["keys"].items()}
        if not metrics:
            raise ValueError("no metric is named")
        trials, columns = read_trials(folder / "trials.csv", spaces)
        read, notes = with_curves(folder, trials, [metric.name for metric in metrics])
        return SweepData(
            name=folder.resolve().name,
            path=folder,
            about=str(found.get("about") or ""),
            status=str(found.get("status") or ""),
            scheduler=str(found.get("scheduler") or ""),
            search=str(found.get("search") or ""),
            asked=_whole(found.get("trials")),
            seed=_whole(found.get("seed")),
            metrics=metrics,
            rungs=tuple(sorted(int(rung) for rung in found.get("rungs") or ())),
            keys=_keys(spaces, found.get("paper") or {}, read),
            trials=read,
            best=_whole(found.get("best")),
            front=tuple(int(number) for number in found.get("front") or ()),
            importance=_importance(found.get("importance") or {}),
            samples_trained=_number(found.get("samples_trained")),
            seconds=_number(found.get("seconds")),
            confirmed=_confirmed(found.get("confirmed")),
            columns=columns,
            notes=notes,
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is none that `collagan sweep` wrote ({error!r}). {MEND}.") from None


def short_labels(names: list[str]) -> dict[str, str]:
    """ "loss.weights.inpainting.rec" -> "inpainting.rec": the shortest ending that says what it is and no other key has."""

    def ending(name: str, length: int) -> str:
        return ".".join(name.split(".")[-length:])

    labels = {}
    for name in names:
        depth = name.count(".") + 1
        lengths = range(2 if depth > 2 else 1, depth + 1)
        unique = (n for n in lengths if sum(ending(other, n) == ending(name, n) for other in names) == 1)
        labels[name] = ending(name, next(unique, depth))
    return labels


def _load(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes(), parse_constant=lambda _: None)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({error}). {MEND}.") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: a JSON object is expected. {MEND}.")
    if found.get("version") != VERSION:
        raise DataError(
            f"{path}: is of version {found.get('version')!r}, this report reads version {VERSION}. "
            f"Use the collagan that wrote it."
        )
    return found


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) else None


def _whole(value: Any) -> int | None:
    return int(value) if is_number(value) else None


def _importance(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    shares = {str(m): {str(k): float(v) for k, v in by.items() if is_number(v)} for m, by in found.items()}
    return {metric: by for metric, by in shares.items() if by}


def _confirmed(found: Any) -> Confirmed | None:
    if not found:
        return None
    return Confirmed(
        seeds=int(found["seeds"]),
        metric=str(found["metric"]),
        paper=_side(found["paper"]),
        best=_side(found["best"]),
        trial=_whole(found["best"].get("trial")),
        difference=float(found["difference"]),
        p=_number(found.get("p")),
    )


def _side(found: Mapping[str, Any]) -> Side:
    values = tuple(float(value) for value in found.get("values") or () if is_number(value))
    return Side(values, float(found["mean"]), None if len(values) == 1 else _number(found.get("sd")))


def _keys(
    spaces: Mapping[str, dict[str, Any]], paper: Mapping[str, Any], trials: tuple[TrialData, ...]
) -> tuple[Key, ...]:
    labels = short_labels(list(spaces))
    keys = []
    for name, space in spaces.items():
        kind, published = str(space.get("kind") or ""), paper.get(name)
        choices: tuple[str, ...] = ()
        if is_choice(space):
            seen = [trial.values.get(name) for trial in trials]
            named = [word_of(value) for value in space.get("values") or ()]
            choices = tuple(dict.fromkeys([*named, *(str(value) for value in seen if value is not None)]))
            published = None if published is None else word_of(published)
        low, high = _number(space.get("low")), _number(space.get("high"))
        value = published if is_number(published) or isinstance(published, str) else None
        keys.append(Key(name, labels[name], kind, low, high, choices, value))
    return tuple(keys)
