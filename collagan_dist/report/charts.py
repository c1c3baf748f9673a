"""Which charts a page of runs shows: curves of train lines, of evaluations, and of several runs."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from collagan_dist.report import formatting
from collagan_dist.report.evaluation import EvaluationScores
from collagan_dist.report.line_chart import Chart, Series
from collagan_dist.report.run_data import RunData
from collagan_dist.report.vega import COLOURS
from collagan_dist.runs.thinning import Curve

# Tasks are not listed here: a new task's losses are shown without a change.
_LOSS = re.compile(r"loss/(?P<task>.+)/(?P<part>[^/]+)")
# The order of the charts.
_LOSS_TITLES = {
    "rec": "Reconstruction loss",
    "adv": "Adversarial loss of the generator",
    "disc": "Discriminator loss",
}
_TITLES = {
    "loss/total": "Total loss",
    "lr": "Learning rate",
    "images_per_s": "Pictures per second",
    "data_wait_share": "Share of time spent waiting for data",
}
# Keys "<group>/<member>" share a chart. Group: title, whether it is shown among the main charts, reference values.
_GROUPS: dict[str, tuple[str, bool, tuple[tuple[str, float], ...]]] = {
    "accuracy": ("Accuracy of the discriminators", True, (("guessing", 0.5),)),
    "weighted": ("What each term adds to the total loss", True, ()),
    "gradient": ("Norm of the gradient", False, ()),
}
# Which task's colour a metric has; a metric of another task has a colour that no task has.
_METRIC_TASKS = {
    "inpainting": ("psnr", "ssim", "frechet", "perceptual"),
    "segmentation": ("dice",),
    "landmarks": ("landmark_error",),
}
_NO_TASK = COLOURS - 1
# The discriminator's loss is the mean cross-entropy over real and fake: one that cannot tell them apart has ln 2.
_UNDECIDED = ("undecided: ln 2", math.log(2))


def train_charts(run: RunData) -> list[Chart]:
    """Return the losses of all tasks, then every other number of the train lines."""
    keys = list(run.log.train.curves)
    tasks = _tasks(run, keys)
    losses: dict[str, list[Series]] = {}
    others: dict[str, list[Series]] = {}
    for key in keys:
        match = _LOSS.fullmatch(key)
        if match:
            label, colour = formatting.to_words(match["task"]), tasks.index(match["task"])
            losses.setdefault(match["part"], []).append(_series(run, key, label, colour))
        else:
            group = others.setdefault(_group(key), [])
            group.append(_series(run, key, _member(key), _member_colour(key, tasks, len(group))))
    marks = tuple(run.log.marks)
    # sorted() is stable: parts without a title stay in the order of the log.
    ordered = sorted(losses, key=lambda part: [*_LOSS_TITLES, part].index(part))
    charts = [_loss_chart(part, tuple(losses[part]), marks) for part in ordered]
    return charts + [_other_chart(name, tuple(others[name]), marks) for name in _main_first(others)]


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
    references = () if single else _references(run.evaluation, keys)
    unit = formatting.metric_unit(name)
    return Chart(heading, tuple(series), unit, references, noisy=False, main=not single)


def comparison_charts(runs: Sequence[RunData], names: Sequence[str]) -> list[Chart]:
    """Return one chart for each key that at least two runs have."""
    charts = []
    named = list(enumerate(zip(runs, names, strict=True)))
    for key in _shared(_summary_keys(run) for run in runs):
        series = _not_empty(_first_subject(run, key, name, colour) for colour, (run, name) in named)
        charts.append(Chart(formatting.metric_label(key), series, formatting.metric_unit(key), noisy=False))
    for key in _shared(run.log.train.curves for run in runs):
        series = _not_empty(_series(run, key, name, colour) for colour, (run, name) in named)
        # Adversarial losses cannot be compared over runs: each generator has a discriminator of its own.
        match = _LOSS.fullmatch(key)
        main = key == "loss/total" or bool(match and match["part"] == "rec")
        charts.append(Chart(title(key), series, from_zero=_from_zero(key), main=main))
    return charts


def title(key: str) -> str:
    """Return "Reconstruction loss: inpainting" for "loss/inpainting/rec"."""
    match = _LOSS.fullmatch(key)
    if match:
        part = _LOSS_TITLES.get(match["part"], f"Loss, {match['part']}")
        return f"{part}: {match['task'].replace('_', ' ')}"
    group, _, member = key.partition("/")
    if group in _GROUPS:
        return f"{_GROUPS[group][0]}{': ' + _member(key).lower() if member else ''}"
    return _TITLES.get(key, formatting.to_words(key))


def _member(key: str) -> str:
    """Return the label of a curve in a chart that names its group: "Inpainting, rec" for "weighted/inpainting/rec"."""
    group, _, member = key.partition("/")
    return formatting.to_words(member.replace("/", ", ")) if group in _GROUPS else title(key)


def _member_colour(key: str, tasks: Sequence[str], index: int) -> int:
    """Return the colour of the task that a key names (accuracy/inpainting, weighted/inpainting/rec), else one of no task."""
    group, _, member = key.partition("/")
    task = member.split("/")[0]
    if task in tasks:
        return tasks.index(task)
    return len(tasks) + index if group in _GROUPS else _NO_TASK


def _metric_colour(run: RunData, name: str) -> int:
    task = next((task for task, names in _METRIC_TASKS.items() if name in names), None)
    return run.tasks.index(task) if task in run.tasks else _NO_TASK


def _tasks(run: RunData, keys: Iterable[str]) -> list[str]:
    # A run of a newer version may log tasks that its configuration does not name.
    logged = [match["task"] for match in map(_LOSS.fullmatch, keys) if match]
    return list(dict.fromkeys([*run.tasks, *logged]))


def _series(run: RunData, key: str, label: str, colour: int) -> Series:
    curve = run.log.train.curves.get(key, Curve())
    return Series(label, colour, curve.steps, curve.values, (curve.last_step, curve.last))


def _eval_series(items: Sequence[EvaluationScores], key: str, label: str, colour: int) -> Series:
    return Series(label, colour, tuple(item.step or 0 for item in items), tuple(item.values[key] for item in items))


def _loss_chart(part: str, series: tuple[Series, ...], marks: tuple[int, ...]) -> Chart:
    references = (_UNDECIDED,) if part == "disc" else ()
    heading = _LOSS_TITLES.get(part, f"Loss, {part}")
    return Chart(heading, series, references=references, marks=marks, main=part in _LOSS_TITLES)


def _other_chart(name: str, series: tuple[Series, ...], marks: tuple[int, ...]) -> Chart:
    _, main, references = _GROUPS.get(name, ("", name in _TITLES, ()))
    # A learning rate is exact: its mean would round off its steps.
    return Chart(title(name), series, "", references, marks, not name.startswith("lr"), _from_zero(name), main)


def _from_zero(key: str) -> bool:
    # Speeds and shares mean little on an axis that does not begin at zero.
    return key in ("images_per_s", "data_wait_share")


def _group(key: str) -> str:
    """Return which chart a key belongs to: lr/generator and lr/discriminators share one, loss/total has its own."""
    return key if key in _TITLES else formatting.metric_name(key)


def _main_first(names: Iterable[str]) -> list[str]:
    known = [*_GROUPS, *_TITLES]
    return sorted(names, key=lambda name: known.index(name) if name in known else len(known))


def _references(item: EvaluationScores | None, keys: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Return the baselines of one variant: inside the hole where there is such a number, which matters most."""
    if item is None:
        return ()
    key = next((key for key in keys if formatting.metric_name(key).endswith("_hole")), keys[0])
    named = [(name, values[key]) for name, values in item.baselines.items() if key in values]
    if not named and key != keys[0]:
        return _references(item, keys[:1])
    return tuple(
        (formatting.to_words(name) + (", in the hole" if "_hole" in key else ""), value) for name, value in named
    )


def _shared(keys_of_runs: Iterable[Iterable[str]]) -> list[str]:
    # A key of one run alone is in that run's own charts.
    counts = Counter(key for keys in keys_of_runs for key in keys)
    return [key for key, count in counts.items() if count > 1]


def _summary_keys(run: RunData) -> list[str]:
    keys = dict.fromkeys(key for item in run.logged for key in item.values)
    return [key for key in keys if "/" not in key or key.endswith("/mean")]


def _not_empty(found: Iterable[Series]) -> tuple[Series, ...]:
    return tuple(series for series in found if series.steps)


def _first_subject(run: RunData, key: str, label: str, colour: int) -> Series:
    """Return the evaluations of the first subject (split and hole) that has the key."""
    items = [item for item in run.logged if key in item.values]
    # A second subject would go over the same steps again.
    return _eval_series([item for item in items if item.subject == items[0].subject], key, label, colour)
