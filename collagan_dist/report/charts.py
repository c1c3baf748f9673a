"""Which charts a page of runs shows: curves of train lines, of evaluations, and of several runs."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from collagan_dist.report import formatting
from collagan_dist.report.evaluation import EvaluationScores
from collagan_dist.report.line_chart import Chart, Series
from collagan_dist.report.run_data import RunData
from collagan_dist.report.tables import summary_keys
from collagan_dist.report.vega import COLOURS
from collagan_dist.runs.thinning import Curve

# Tasks are not listed here: a new task's losses are shown without a change.
_LOSS = re.compile(r"loss/(?P<task>.+)/(?P<part>[^/]+)")


@dataclass(frozen=True)
class _Kind:
    """What a chart of train lines is. `main` is whether it is among those that are seen at once."""

    title: str
    main: bool = True
    references: tuple[tuple[str, float], ...] = ()
    noisy: bool = True
    from_zero: bool = False


# In the order of the page. Keys "loss/<task>/<part>" share the chart "loss/<part>", "<group>/<member>" the chart "<group>".
_KINDS = {
    "loss/rec": _Kind("Reconstruction loss"),
    "loss/adv": _Kind("Adversarial loss of the generator"),
    # The mean cross-entropy over real and fake: a discriminator that cannot tell them apart has ln 2.
    "loss/disc": _Kind("Discriminator loss", references=(("undecided: ln 2", math.log(2)),)),
    "accuracy": _Kind("Accuracy of the discriminators", references=(("guessing", 0.5),)),
    "weighted": _Kind("What each term adds to the total loss"),
    "loss/total": _Kind("Total loss"),
    # A learning rate is exact: its mean would round off its steps.
    "lr": _Kind("Learning rate", noisy=False),
    # Speeds and shares mean little on an axis that does not begin at zero.
    "images_per_s": _Kind("Pictures per second", from_zero=True),
    "data_wait_share": _Kind("Share of time spent waiting for data", from_zero=True),
    "gradient": _Kind("Norm of the gradient", main=False),
}
# Charts of which runs are compared at once. Not adversarial losses: each generator has a discriminator of its own.
_COMPARED = ("loss/rec", "loss/total")
# Which task's colour a metric has; a metric of another task has a colour that no task has.
_METRIC_TASKS = {
    "inpainting": ("psnr", "ssim", "frechet", "perceptual"),
    "segmentation": ("dice",),
    "landmarks": ("landmark_error",),
}
_NO_TASK = COLOURS - 1


def train_charts(run: RunData) -> list[Chart]:
    """Return the losses of all tasks, then every other number of the train lines."""
    keys = list(run.log.train.curves)
    # A run of a newer version may log tasks that its configuration does not name.
    logged = [match["task"] for match in map(_LOSS.fullmatch, keys) if match]
    tasks = list(dict.fromkeys([*run.tasks, *logged]))
    groups: dict[str, list[Series]] = {name: [] for name in _KINDS}
    for key in keys:
        name, member = _place(key)
        group = groups.setdefault(name, [])
        label = formatting.to_words(member.replace("/", ", ")) or _kind(name).title
        group.append(_series(run, key, label, _colour(member, tasks, len(group))))
    marks = tuple(run.log.marks)
    return [_train_chart(name, tuple(series), marks) for name, series in groups.items() if series]


def eval_charts(run: RunData) -> list[Chart]:
    """Return one chart for each metric with its variants and baselines, then one for its single classes or points."""
    groups: dict[tuple[bool, str], list[str]] = {}
    # dict.fromkeys keeps the order of the log and drops repetitions.
    for key in dict.fromkeys(key for item in run.logged for key in item.values):
        single = "/" in key and not key.endswith("/mean")
        name = formatting.metric_name(key) if single else formatting.base_metric(key)
        groups.setdefault((single, name), []).append(key)
    return [
        _eval_chart(run, name, keys, single) for (single, name), keys in sorted(groups.items(), key=lambda g: g[0][0])
    ]


def _eval_chart(run: RunData, name: str, keys: Sequence[str], single: bool) -> Chart:
    series: list[Series] = []
    subjects = list(dict.fromkeys(item.subject for item in run.logged))
    for key in keys:
        for subject in subjects:
            chosen = [item for item in run.logged if item.subject == subject and key in item.values]
            label = formatting.part_label(key.split("/", 1)[1]) if single else formatting.variant_label(key)
            # A run that changed its evaluation has several subjects, whose values must not be joined by one line.
            label += f" ({' '.join(filter(None, subject))})" if len(subjects) > 1 else ""
            if chosen:
                # Classes and points have colours of their own.
                colour = len(series) if single else _metric_colour(run, name)
                series.append(_eval_series(chosen, key, label, colour))
    heading = f"{formatting.metric_label(name)}{': each one' if single else ''}"
    # A baseline has a line for the metric, not one for each of its classes.
    references = () if single else _references(run, keys)
    unit = formatting.metric_unit(name)
    return Chart(heading, tuple(series), unit, references, noisy=False, main=not single)


def comparison_charts(runs: Sequence[RunData], names: Sequence[str]) -> list[Chart]:
    """Return one chart for each key that at least two runs have."""
    charts = []
    for key in _shared(summary_keys(run.logged) for run in runs):
        series = _one_each(_first_subject, runs, names, key)
        charts.append(Chart(formatting.metric_label(key), series, formatting.metric_unit(key), noisy=False))
    for key in _shared(run.log.train.curves for run in runs):
        series = _one_each(_series, runs, names, key)
        name, member = _place(key)
        chart = _train_chart(name, series)
        heading = chart.title + (f": {member.replace('/', ', ').replace('_', ' ')}" if member else "")
        charts.append(replace(chart, title=heading, references=(), main=name in _COMPARED))
    return charts


def _place(key: str) -> tuple[str, str]:
    """Return the name of the chart of a key, and which of its curves it is; "" for the only one."""
    match = _LOSS.fullmatch(key)
    if match:
        return f"loss/{match['part']}", match["task"]
    group, _, member = key.partition("/")
    return (key, "") if key in _KINDS else (group, member)


def _kind(name: str) -> _Kind:
    other = f"Loss, {name.removeprefix('loss/')}" if name.startswith("loss/") else formatting.to_words(name)
    return _KINDS.get(name) or _Kind(other, main=False)


def _train_chart(name: str, series: tuple[Series, ...], marks: tuple[int, ...] = ()) -> Chart:
    kind = _kind(name)
    return Chart(kind.title, series, "", kind.references, marks, kind.noisy, kind.from_zero, kind.main)


def _colour(member: str, tasks: Sequence[str], index: int) -> int:
    """Return the colour of the task that a curve is of (inpainting, inpainting/rec), else one of no task."""
    task = next((task for task in (member, member.split("/")[0]) if task in tasks), None)
    if task is None:
        return len(tasks) + index if member else _NO_TASK
    return tasks.index(task)


def _metric_colour(run: RunData, name: str) -> int:
    task = next((task for task, names in _METRIC_TASKS.items() if name in names), None)
    return run.tasks.index(task) if task in run.tasks else _NO_TASK


def _series(run: RunData, key: str, label: str, colour: int) -> Series:
    curve = run.log.train.curves.get(key, Curve())
    return Series(label, colour, curve.steps, curve.values, (curve.last_step, curve.last))


def _eval_series(items: Sequence[EvaluationScores], key: str, label: str, colour: int) -> Series:
    return Series(label, colour, tuple(item.step or 0 for item in items), tuple(item.values[key] for item in items))


def _references(run: RunData, keys: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Return the baselines of one variant: inside the hole where there is such a number, which matters most."""
    item = run.evaluation
    # On another hole, or blended, baselines are no measure of the curves.
    if item is None or {one.subject[1:] for one in run.logged} != {item.subject[1:]}:
        return ()
    # In training the split is another one, whose baselines are close.
    split = "" if {one.split for one in run.logged} == {item.split} else f" ({item.split} split)"
    key = next((key for key in keys if formatting.metric_name(key).endswith("_hole")), keys[0])
    named = [(name, values[key]) for name, values in item.baselines.items() if key in values]
    if not named and key != keys[0]:
        return _references(run, keys[:1])
    where = (", in the hole" if "_hole" in key else "") + split
    return tuple((formatting.to_words(name) + where, value) for name, value in named)


def _shared(keys_of_runs: Iterable[Iterable[str]]) -> list[str]:
    # A key of one run alone is in that run's own charts.
    counts = Counter(key for keys in keys_of_runs for key in keys)
    return [key for key, count in counts.items() if count > 1]


def _one_each(
    curve: Callable[[RunData, str, str, int], Series], runs: Sequence[RunData], names: Sequence[str], key: str
) -> tuple[Series, ...]:
    found = (curve(run, key, name, colour) for colour, (run, name) in enumerate(zip(runs, names, strict=True)))
    return tuple(series for series in found if series.steps)


def _first_subject(run: RunData, key: str, label: str, colour: int) -> Series:
    """Return the evaluations of the first subject (split and hole) that has the key."""
    items = [item for item in run.logged if key in item.values]
    # A second subject would go over the same steps again.
    return _eval_series([item for item in items if item.subject == items[0].subject], key, label, colour)
