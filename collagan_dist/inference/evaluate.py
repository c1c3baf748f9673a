"""Metrics over a split: every sample once, over all ranks, beside trivial baselines on the same samples."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from collagan_dist.data.loading import geometry, order
from collagan_dist.data.loading.fallback_reader import DamageRecord, check_damage_limit
from collagan_dist.data.loading.occlusion_boxes import hole_size
from collagan_dist.data.shards.shard_reader import DamagedSample, SplitReader, StoredSample
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.models.predictor import Blend, Predictor, TaskTensors
from collagan_dist.setup import Setup, sequential_ids
from collagan_dist.tasks import poisson
from collagan_dist.tasks.base import SampleValues, Task
from collagan_dist.types import POSITIONS, Batch

_STATISTICS_SAMPLES = 2048  # training samples behind the mean landmarks
_BATCH = 32

# What is measured of one predictor: task name to rows.
Measured = dict[str, SampleValues]


@dataclass(frozen=True)
class Evaluation:
    """`metrics` as in metrics.json; `samples` are what they are made of: `ids` (N,) and, by metric, one row a sample."""

    metrics: dict[str, Any]
    samples: dict[str, np.ndarray]


def evaluate(
    setup: Setup, predictor: Predictor, split: str, hole: str, baselines: int, blends: Sequence[str] = ("none",)
) -> list[Evaluation]:
    """A model on the samples of a split, once for each of `blends` (BLENDS). Collective; every rank gets the result.

    docs/run-folder.md has the metrics. Baselines are computed on the first `baselines` samples, and
    `baselines_subset.model` repeats the model on those.
    """
    check_blends(blends, setup.tasks)
    loader = setup.loader(split, setup.view(training=False, hole=hole), _BATCH)
    count = min(len(loader.split), setup.config.evaluate.samples or len(loader.split))
    few = min(baselines, count)
    statistics = _statistics(setup) if few else {}
    ids: list[int] = []
    sizes: list[np.ndarray] = []
    measured: dict[str, list[Measured]] = {blend: [] for blend in blends}
    trivial: list[dict[str, Measured]] = []
    plan = sequential_ids(order.rank_samples(count, setup.world), _BATCH)
    for batch in _in_step(setup, loader.batches(plan), count):
        ids += batch.ids_B.tolist()
        if hole in POSITIONS:
            sizes.append(hole_size(batch.hole_B1HW))
        outputs = predictor(batch)
        for blend in blends:
            measured[blend].append(_measure(setup.tasks, BLENDS[blend](outputs, batch), batch))
        if (first := _head(batch, few)) is not None:
            trivial.append(_baselines(setup.tasks, first, statistics))
    mine = (np.array(ids, np.int64), {b: _concatenate(m) for b, m in measured.items()}, _concatenate_named(trivial))
    parts = [part for part in setup.group.all_gather(mine) if len(part[0])]
    damaged = [one for found in setup.group.all_gather(loader.damaged) for one in found]
    _check(setup, damaged)
    if not parts:
        raise DataError(
            f"{setup.manifest.folder}: no sample of the split {split!r} can be read; run `collagan verify --deep`"
        )
    about: dict[str, Any] = {"damaged": len(damaged)} if damaged else {}
    if hole in POSITIONS:
        extents = np.concatenate([size for part in setup.group.all_gather(sizes) for size in part])
        if not np.isnan(extents).all():  # pictures whose box lies outside have none
            about["hole_size"] = np.nanmean(extents, axis=0).tolist()
    results = []
    for blend in blends:
        scored = _summary(setup.tasks, [(i, m[blend], t) for i, m, t in parts], few)
        head = {"split": split, "hole": hole, "blend": blend, "samples": sum(len(p[0]) for p in parts)}
        results.append(replace(scored, metrics={**head, **scored.metrics, **about}))
    return results


def _in_step(setup: Setup, batches: Iterator[Batch], count: int) -> Iterator[Batch]:
    """The batches, with all ranks waiting for one another after each, so that none waits long at the end. Collective."""
    for _ in range(-(-count // (setup.world.size * _BATCH))):  # of the largest share
        if (batch := next(batches, None)) is not None:
            yield batch
        setup.group.barrier("an evaluation")


def _blended(outputs: TaskTensors, batch: Batch) -> TaskTensors:
    return {**outputs, "inpainting": poisson.blend(outputs["inpainting"], batch)}


# What becomes of a completion before it is scored.
BLENDS: dict[str, Blend] = {"none": lambda outputs, batch: outputs, "poisson": _blended}


def check_blends(blends: Sequence[str], tasks: Iterable[str]) -> None:
    """Raises ConfigError when a model without completions is to blend some."""
    if any(blend != "none" for blend in blends) and "inpainting" not in tasks:
        raise ConfigError(f"--blend: the model has no completions to blend, only {', '.join(tasks)}")


def _check(setup: Setup, damaged: list[DamageRecord]) -> None:
    """DamageRecord samples were left out: say so, and refuse a result that lacks too many."""
    if setup.world.is_rank0:
        for one in damaged:
            print(f"warning: {one.reason}; it was left out", file=sys.stderr, flush=True)
    check_damage_limit(setup.manifest.folder, len(damaged), setup.config.data.max_damaged)


def _measure(tasks: dict[str, Task], outputs: TaskTensors, batch: Batch) -> Measured:
    return {name: tasks[name].measure(output, batch) for name, output in outputs.items()}


def _baselines(tasks: dict[str, Task], batch: Batch, statistics: dict[str, Any]) -> dict[str, Measured]:
    result: dict[str, Measured] = {}
    for name, task in tasks.items():
        for baseline, output in task.baselines(batch, statistics).items():
            result.setdefault(baseline, {})[name] = task.measure(output, batch)
    return result


def _head(batch: Batch, limit: int) -> Batch | None:
    """The samples of a batch whose number is below `limit`; numbers rise, so they come first."""
    count = int((batch.ids_B < limit).sum())
    if count == 0:
        return None
    tensors = {
        name: value[:count]
        for name, value in vars(batch).items()
        if value is not None  # a set without labels or landmarks
    }
    return replace(batch, **tensors)


def _statistics(setup: Setup) -> dict[str, Any]:
    """What trivial predictors know of the training set: the mean landmarks in pixels of a view."""
    if not any(task.needs_points for task in setup.tasks.values()):
        return {}
    split = setup.split(setup.config.data.split)
    size = setup.config.data.image_size
    total = np.zeros(2)
    face_square = setup.config.data.face_square
    count = min(_STATISTICS_SAMPLES, len(split))
    samples = [sample for number in range(count) if (sample := _readable(split, number)) is not None]
    for sample in samples:
        to_view = np.linalg.inv(geometry.view_to_stored(sample, size, np.zeros(2), 0.0, 1.0, False, face_square))
        points = np.array(sample.landmarks, np.float64)
        total = total + geometry.move_points(points[None], to_view[None], np.zeros(1, bool))[0]
    return {"mean_points": total / max(1, len(samples))}


def _readable(split: SplitReader, number: int) -> StoredSample | None:
    try:
        return split.read(number)
    except DamagedSample:
        return None


def _concatenate(parts: list[Measured]) -> Measured:
    if not parts:
        return {}
    return {
        task: {name: np.concatenate([p[task][name] for p in parts]) for name in parts[0][task]} for task in parts[0]
    }


def _concatenate_named(parts: list[dict[str, Measured]]) -> dict[str, Measured]:
    return {name: _concatenate([p[name] for p in parts]) for name in (parts[0] if parts else ())}


def _summary(tasks: dict[str, Task], parts: list[Any], few: int) -> Evaluation:
    """What all ranks' (ids, rows, baselines' rows) say together."""
    ids = np.concatenate([p[0] for p in parts])
    order_of_ids = np.argsort(ids)
    rows = _sorted(_concatenate([p[1] for p in parts]), order_of_ids)
    values, errors = _summarize(tasks, rows)
    result: dict[str, Any] = {**values, "se": errors}
    with_some = [p for p in parts if p[2]]
    if with_some:  # the segmentation task alone has no trivial competitor
        few_order = np.argsort(np.concatenate([p[0][p[0] < few] for p in with_some]))
        named = _concatenate_named([p[2] for p in with_some])
        result["baselines"] = {name: _summarize(tasks, _sorted(m, few_order))[0] for name, m in named.items()}
        count = int((ids < few).sum())
        if count < len(ids):
            subset = {task: {name: v[:count] for name, v in task_rows.items()} for task, task_rows in rows.items()}
            result["baselines_subset"] = {"samples": count, "model": _summarize(tasks, subset)[0]}
    return Evaluation(result, {"ids": ids[order_of_ids]} | {k: v for task in rows.values() for k, v in task.items()})


def _sorted(measured: Measured, by: np.ndarray) -> Measured:
    return {task: {name: values[by] for name, values in rows.items()} for task, rows in measured.items()}


def _summarize(tasks: dict[str, Task], measured: Measured) -> tuple[dict[str, Any], dict[str, Any]]:
    values: dict[str, Any] = {}
    errors: dict[str, Any] = {}
    for name, rows in measured.items():
        mine, mine_errors = tasks[name].summarize(rows)
        values |= mine
        errors |= mine_errors
    return values, errors
