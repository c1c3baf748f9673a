"""The folder of `collagan sweep` as the report reads it: searched keys, trials and results of sweep.json and trials.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, RootModel

from collagan_dist import structured
from collagan_dist.errors import DataError
from collagan_dist.report import formatting, trial_data
from collagan_dist.report.evaluation import is_number
from collagan_dist.report.repeats import by_configuration
from collagan_dist.report.run_data import read_json_object
from collagan_dist.report.trial_data import TrialData, Value
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.metrics_log import undrawable_note
from collagan_dist.runs.thinning import spread_evenly

VERSION = 1
# Trials that charts and tables show. More make a page of megabytes on which no mark can be told from the next.
MAX_SHOWN = 300
_MAX_FRONT, _MAX_REPEATED, _MAX_FAILED, _MAX_BEST = 60, 20, 30, 90
_Rung = Annotated[int, Field(ge=0, le=10**15)]


@dataclass(frozen=True)
class Metric:
    """A metric that the sweep optimizes."""

    name: str
    mode: Literal["max", "min"]

    @property
    def sign(self) -> int:
        """+1 where larger is better, -1 where smaller is."""
        return 1 if self.mode == "max" else -1

    @property
    def label(self) -> str:
        return formatting.metric_title(self.name)


@dataclass(frozen=True)
class Key:
    """One searched key. `label` is the shortest unique ending of its name; `paper` is the paper's value.

    A key without order has `choices`, its values as text; one with order has the ends `low` and `high`.
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


class SeedScores(structured.Record):
    """One metric of the same settings over several seeds; `sd` is None with a single seed, `trial` is whose settings they are."""

    mean: float
    sd: float | None = None
    trial: int | None = None


class Confirmation(structured.Record):
    """The best trial and the paper's λ trained again over `seeds` seeds; `p` is None where no test was possible."""

    seeds: int
    metric: str
    paper: SeedScores
    best: SeedScores
    difference: float
    p: float | None = None


class Lead(structured.Record):
    """How much better the best trial is than the `next` one, with the standard error of that; `clear` where it is more than noise."""

    next: int
    difference: float
    error: float
    clear: bool


class MetricBounds(structured.Record):
    """The values that a metric may have."""

    min: float | None = None
    max: float | None = None


class _Space(structured.Record):
    kind: str | None = None
    low: float | None = None
    high: float | None = None
    values: list[Any] | None = None


def _only_complete(found: Any) -> Any:
    """Return a confirmation as it is; None without one of its numbers, as there is no comparison then."""
    if not isinstance(found, dict):
        return found
    sides = [side for name in ("paper", "best") if isinstance(side := found.get(name), dict)]
    return None if None in (found.get("difference"), *(side.get("mean") for side in sides)) else found


def _known(found: Any) -> Any:
    """Return a list or an object without its numbers that are None."""
    if isinstance(found, dict):
        return {key: value for key, value in found.items() if value is not None}
    return tuple(value for value in found if value is not None) if isinstance(found, list) else found


@dataclass(frozen=True, kw_only=True)
class _SweepFile:
    """The content of sweep.json, without numbers that cannot be drawn.

    `rungs` are in samples, the last is a full-length run; `best` and `front` are numbers of trials; `repeats` seeds are one trial;
    `warnings` say what is searched without effect. `left_out` says which nodes got no more trials.
    """

    metrics: Annotated[tuple[Metric, ...], Field(min_length=1)]  # everything is by the first
    spaces: Annotated[dict[str, _Space], Field(alias="keys")]
    about: str = ""
    status: str = ""
    scheduler: str = ""
    search: str = ""
    planned_trials: Annotated[int | None, Field(alias="trials")] = None
    seed: int | None = None
    # Sorted, as the last one is taken for the length of a full run.
    constraints: dict[str, MetricBounds] = field(default_factory=dict)
    repeats: Annotated[int, Field(ge=1)] = 1
    rungs: Annotated[
        tuple[_Rung, ...], BeforeValidator(_known), AfterValidator(lambda found: tuple(sorted(found)))
    ] = ()
    best: int | None = None
    front: Annotated[tuple[int, ...], BeforeValidator(_known)] = ()
    paper: dict[str, Any] = field(default_factory=dict)
    importance: dict[str, Annotated[dict[str, float], BeforeValidator(_known)]] = field(default_factory=dict)
    samples_trained: float | None = None
    seconds: float | None = None
    confirmed: Annotated[Confirmation | None, BeforeValidator(_only_complete)] = None
    lead: Lead | None = None
    warnings: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    __pydantic_config__ = structured.Record.model_config

    def is_full_length(self, trial: TrialData) -> bool:
        """Return whether the trial trained up to the last rung."""
        # A trial at the last rung may not have its final status yet, so its samples decide.
        if self.rungs and trial.samples is not None:
            return trial.samples >= self.rungs[-1]
        return trial.status == "done"

    def broken(self, trial: TrialData) -> dict[str, str]:
        """Return the constraints that the trial breaks: by metric, "above 2"."""
        found = {}
        for name, bounds in self.constraints.items():
            value = trial.scores.get(name)
            for bound, sign, word in ((bounds.min, -1, "below"), (bounds.max, 1, "above")):
                if value is not None and bound is not None and sign * (value - bound) > 0:
                    found[name] = f"{word} {bound:g}"
        return found


@dataclass(frozen=True, kw_only=True)
class SweepData(_SweepFile):
    """A sweep: sweep.json, and what else its folder has.

    `columns` are the metrics of trials.csv in its order; `notes` say which trials could not be read. `shown` are the numbers of
    the trials that charts and tables show, None for all; numbers that are computed are of all trials. With `repeats` a trial is the mean
    of several, under the number of the first.
    """

    name: str
    path: Path
    keys: tuple[Key, ...]
    trials: tuple[TrialData, ...]
    columns: tuple[str, ...]
    notes: tuple[str, ...]
    shown: frozenset[int] | None

    @property
    def main(self) -> Metric:
        return self.metrics[0]

    @property
    def searched(self) -> tuple[TrialData, ...]:
        """All trials but the repetitions over other seeds."""
        # Repetitions would count one point of the space several times.
        return tuple(trial for trial in self.trials if trial.role != "confirm")

    def trial(self, number: int | None) -> TrialData | None:
        return next((trial for trial in self.trials if trial.number == number), None)

    @property
    def best_trial(self) -> TrialData | None:
        return self.trial(self.best)

    def best_number(self, name: str) -> int | None:
        """Return the sweep's best trial for its first metric, the best full-length run for any other of trials.csv."""
        if name == self.main.name and self.best is not None:
            return self.best
        sign = next((metric.sign for metric in self.metrics if metric.name == name), formatting.better_sign(name))
        # A trial stopped early has the value of a shorter training: it may lead by the noise of its rung.
        runs = [trial for trial in self.searched if name in trial.scores and self.is_full_length(trial)]
        runs = [trial for trial in runs if not self.broken(trial)]
        return max(runs, key=lambda trial: sign * trial.scores[name]).number if runs else None

    @property
    def paper_trial(self) -> TrialData | None:
        return next((trial for trial in self.trials if trial.role == "paper"), None)

    def is_shown(self, trial: TrialData) -> bool:
        return self.shown is None or trial.number in self.shown

    def folder(self, trial: TrialData) -> Path:
        return trial_data.trial_folder(self.path, trial.number)


def is_sweep(folder: Path) -> bool:
    return (folder / "sweep.json").is_file() and not RunPaths(folder).exists()


def read_sweep(folder: Path) -> SweepData:
    """Read a sweep's folder. Raises DataError when sweep.json or trials.csv is damaged; a damaged trial becomes a note."""
    path, notes = folder / "sweep.json", list[str]()
    found = read_json_object(path, notes, trial_data.REPAIR_HINT)
    # A newer version may mean something else by the same key.
    if found.get("version") != VERSION:
        raise DataError(
            f"{path}: is of version {found.get('version')!r}, this report reads version {VERSION}. "
            f"Use the collagan that wrote it."
        )
    try:
        # A sweep that has just begun writes null for what is not known yet.
        content = structured.validate(_known(found), RootModel[_SweepFile], str(path)).root
    except structured.Malformed as error:
        raise DataError(f"{error}: was not written by `collagan sweep`. {trial_data.REPAIR_HINT}.") from None
    return _parse_sweep(folder, content, notes)


def short_labels(names: list[str]) -> dict[str, str]:
    """Return for each key the shortest ending that is unique and says what it is.

    "loss.weights.inpainting.rec" becomes "inpainting.rec".
    """

    def ending(name: str, length: int) -> str:
        return ".".join(name.split(".")[-length:])

    labels = {}
    for name in names:
        depth = name.count(".") + 1
        # "rec" alone would not say of which task, even where it is unique.
        lengths = range(2 if depth > 2 else 1, depth + 1)
        unique = (n for n in lengths if sum(ending(other, n) == ending(name, n) for other in names) == 1)
        labels[name] = ending(name, next(unique, depth))
    return labels


def _parse_sweep(folder: Path, found: _SweepFile, notes: list[str]) -> SweepData:
    spaces = {name: space.model_dump() for name, space in found.spaces.items()}
    trials, columns = trial_data.read_trials(folder / "trials.csv", spaces)
    lengths = [trial.samples for trial in trials if trial.role == "paper" and trial.samples is not None]
    # Of all metrics: the best and the paper's trial are compared at the same length by each of them.
    with_curves, on_curves = trial_data.add_curves(folder, trials, columns, kept=(*found.rungs, *lengths))
    notes += undrawable_note("trials.csv", sum(trial.undrawable for trial in trials))
    if found.repeats > 1:
        with_curves = by_configuration(with_curves, found.repeats)
        notes.insert(
            0,
            f"A trial here is the mean of {found.repeats} seeds, under the number of the first. trials.csv lists each seed.",
        )
    shown = _choose_shown(with_curves, found)
    return SweepData(
        **vars(found),
        name=folder.resolve().name,
        path=folder,
        keys=_parse_keys(spaces, found.paper, with_curves),
        trials=with_curves,
        columns=columns,
        notes=(*_shown_note(with_curves, shown), *notes, *on_curves),
        shown=shown,
    )


def _choose_shown(trials: Sequence[TrialData], sweep: _SweepFile) -> frozenset[int] | None:
    """Return the numbers of at most MAX_SHOWN trials, None for all.

    First come the best and the paper's, then some of the front, of the repetitions, of those that failed, the best full-length
    runs, and others evenly spread.
    """
    if len(trials) <= MAX_SHOWN:
        return None
    main = sweep.metrics[0]
    full = [trial for trial in trials if main.name in trial.scores and sweep.is_full_length(trial)]
    full.sort(key=lambda trial: -main.sign * trial.scores[main.name])
    groups = [
        ([sweep.best] if sweep.best is not None else [], 1),
        ([trial.number for trial in trials if trial.role == "paper"], 1),
        (list(sweep.front), _MAX_FRONT),
        ([trial.number for trial in trials if trial.role == "confirm"], _MAX_REPEATED),
        ([trial.number for trial in trials if trial.status == "failed"], _MAX_FAILED),
        ([trial.number for trial in full[:_MAX_BEST]], _MAX_BEST),
    ]
    chosen = {numbers[index] for numbers, most in groups for index in spread_evenly(len(numbers), max(most, 2))}
    others = [trial.number for trial in trials if trial.number not in chosen]
    room = MAX_SHOWN - len(chosen)
    return frozenset(chosen | {others[index] for index in spread_evenly(len(others), room)})


def _shown_note(trials: Sequence[TrialData], shown: frozenset[int] | None) -> tuple[str, ...]:
    if shown is None:
        return ()
    text = f"Charts and tables show {len(shown)} of {len(trials)} trials: the best, the paper's λ, and others evenly spread."
    return (f"{text} Sentences, means and counts are of all, and trials.csv lists all.",)


def _parse_keys(
    spaces: Mapping[str, dict[str, Any]], paper: Mapping[str, Any], trials: tuple[TrialData, ...]
) -> tuple[Key, ...]:
    labels = short_labels(list(spaces))
    keys = []
    for name, space in spaces.items():
        kind, published = str(space.get("kind") or ""), paper.get(name)
        choices: tuple[str, ...] = ()
        if trial_data.is_choice(space):
            # The paper's trial may have a value outside the searched ones.
            seen = [trial.values.get(name) for trial in trials]
            named = [trial_data.choice_text(value) for value in space.get("values") or ()]
            choices = tuple(dict.fromkeys([*named, *(str(value) for value in seen if value is not None)]))
            published = None if published is None else trial_data.choice_text(published)
        # A simplex and a choice have no ends.
        low, high = space["low"], space["high"]
        value = published if is_number(published) or isinstance(published, str) else None
        keys.append(Key(name, labels[name], kind, low, high, choices, value))
    return tuple(keys)
