"""Metrics over a split: every sample once, over all ranks, beside trivial baselines on the same samples."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from collagan_dist.contract import Batch
from collagan_dist.data import geometry, order
from collagan_dist.data.reading import Damaged, check_damaged
from collagan_dist.data.shards import DamagedSample, Split, Stored
from collagan_dist.errors import DataError
from collagan_dist.tasks.base import Rows, Task
from collagan_dist.training.build import Setup, plain_plan
from collagan_dist.training.step import Pictures, split_channels

_STATISTICS_SAMPLES = 2048  # training samples behind the mean landmarks
_BATCH = 32

# What is measured of one predictor: task name to rows.
Measured = dict[str, Rows]


def evaluate(setup: Setup, generator: nn.Module, split: str, hole: str, baselines: int) -> dict[str, Any]:
    """metrics.json of a generator: see the contract in docs/run-folder.md. Collective; every rank gets the result.

    Baselines are computed on the first `baselines` samples, and `baselines_subset.model` repeats the generator on those.
    """
    loader = setup.loader(split, setup.view(training=False, hole=hole), _BATCH)
    statistics = _statistics(setup) if baselines else {}
    mine = order.shares(len(loader.split), setup.world)
    ids: list[int] = []
    measured: list[Measured] = []
    trivial: list[dict[str, Measured]] = []
    for batch in loader.batches(plain_plan(mine, _BATCH)):
        ids += batch.ids_B.tolist()
        measured.append(_measure(setup.tasks, run(generator, batch, setup), batch))
        if (few := _head(batch, baselines)) is not None:
            trivial.append(_baselines(setup.tasks, few, statistics))
    parts = setup.group.gather((np.array(ids, np.int64), _concatenate(measured), _concatenate_named(trivial)))
    damaged = [one for found in setup.group.gather(loader.damaged) for one in found]
    _check(setup, damaged)
    result = _summary(setup, parts, split, hole, min(baselines, len(loader.split)))
    return {**result, "damaged": len(damaged)} if damaged else result


def _check(setup: Setup, damaged: list[Damaged]) -> None:
    """Damaged samples were left out: say so, and refuse a result that lacks too many."""
    if setup.world.is_main:
        for one in damaged:
            print(f"warning: {one.reason}; it was left out", file=sys.stderr, flush=True)
    check_damaged(setup.manifest.folder, len(damaged), setup.config.data.max_damaged)


def run(generator: nn.Module, batch: Batch, setup: Setup) -> Pictures:
    """Outputs by task of a generator at test: running statistics, no noise."""
    generator.eval()
    with torch.inference_mode(), setup.engine.autocast():
        output = generator(batch.input_B3HW, batch.keys_B2)
    generator.train()
    return split_channels(output, setup.tasks)


def _measure(tasks: dict[str, Task], outputs: Pictures, batch: Batch) -> Measured:
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
    count = min(_STATISTICS_SAMPLES, len(split))
    samples = [sample for number in range(count) if (sample := _readable(split, number)) is not None]
    for sample in samples:
        to_view = np.linalg.inv(geometry.view_to_stored(sample, size, np.zeros(2), 0.0, 1.0, False))
        points = np.array(sample.landmarks, np.float64)
        total = total + geometry.move_points(points[None], to_view[None], np.zeros(1, bool))[0]
    return {"mean_points": total / max(1, len(samples))}


def _readable(split: Split, number: int) -> Stored | None:
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


def _summary(setup: Setup, parts: list[Any], split: str, hole: str, few: int) -> dict[str, Any]:
    parts = [p for p in parts if len(p[0])]
    if not parts:
        raise DataError(
            f"{setup.manifest.folder}: no sample of the split {split!r} can be read; run `collagan verify --deep`"
        )
    ids = np.concatenate([p[0] for p in parts])
    order_of_ids = np.argsort(ids)
    rows = _sorted(_concatenate([p[1] for p in parts]), order_of_ids)
    values, errors = _summarize(setup.tasks, rows)
    result: dict[str, Any] = {
        "split": split,
        "hole": hole,
        "blend": "none",
        "samples": len(ids),
        **values,
        "se": errors,
    }
    with_some = [p for p in parts if p[2]]
    if with_some:  # the segmentation task alone has no trivial competitor
        few_order = np.argsort(np.concatenate([p[0][p[0] < few] for p in with_some]))
        named = _concatenate_named([p[2] for p in with_some])
        result["baselines"] = {name: _summarize(setup.tasks, _sorted(m, few_order))[0] for name, m in named.items()}
        count = int((ids < few).sum())
        if count < len(ids):
            subset = {task: {name: v[:count] for name, v in task_rows.items()} for task, task_rows in rows.items()}
            result["baselines_subset"] = {"samples": count, "model": _summarize(setup.tasks, subset)[0]}
    return result


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
