"""Evaluation of a model on a split: every sample once, over all ranks, with trivial baselines on the same samples."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from collagan_dist import shell
from collagan_dist.data.loading import order
from collagan_dist.data.loading.fallback_reader import DamageRecord, check_damage_limit
from collagan_dist.data.loading.occlusion_boxes import hole_size
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.inference import perception
from collagan_dist.models.predictor import Blend, TaskTensors
from collagan_dist.setup import Setup, sequential_ids
from collagan_dist.tasks import poisson
from collagan_dist.tasks.base import SampleValues, Task
from collagan_dist.types import POSITIONS, Batch, World

logger = logging.getLogger(__name__)

# Fixed, not schedule.batch: with evaluate.batch_norm=batch the results depend on it.
_BATCH = 32

Predict = Callable[[Batch], TaskTensors]  # as a Predictor does
# Measurements of one predictor: task name to one value per sample and metric.
Measured = dict[str, SampleValues]


@dataclass(frozen=True)
class Evaluation:
    """`metrics` as in metrics.json; `samples` are the values behind them: `ids` (N,) and, by metric, one row per sample."""

    metrics: dict[str, Any]
    samples: dict[str, np.ndarray]


@dataclass
class _RankValues:
    """What one rank measured, batch by batch. `measured` is by blend, `baselines` by the name of the baseline."""

    measured: dict[str, list[Measured]]
    baselines: list[dict[str, Measured]] = field(default_factory=list)
    ids: list[np.ndarray] = field(default_factory=list)
    hole_sizes: list[np.ndarray] = field(default_factory=list)
    damaged: list[DamageRecord] = field(default_factory=list)


def evaluate(
    setup: Setup, predictor: Predict, split: str, hole: str, baselines: int, blends: Sequence[str] = ("none",)
) -> list[Evaluation]:
    """Evaluate a model on a split, once for each of `blends` (BLENDS). Collective; every rank gets the result.

    docs/run-folder.md lists the metrics. Baselines are computed on the first `baselines` samples, and
    `baselines_subset.model` has the model's metrics on those. Raises ConfigError, DataError.
    """
    check_blends(blends, setup.tasks)
    tasks = perception.measured_tasks(setup)
    loader = setup.loader(split, setup.view(training=False, hole=hole), _BATCH)
    folder = setup.manifest.folder
    # The first samples are a random subset: packing has shuffled the split.
    count = min(len(loader.split), setup.config.evaluate.samples or len(loader.split))
    baseline_samples = min(baselines, count)
    statistics = setup.training_statistics if baseline_samples else {}
    local = _RankValues({blend: [] for blend in blends})
    ids = sequential_ids(order.rank_samples(count, setup.world), _BATCH)
    for batch in _in_lockstep(setup, loader.batches(ids), count):
        local.ids.append(batch.ids_B.astype(np.int64))
        if hole in POSITIONS:
            local.hole_sizes.append(hole_size(batch.hole_B1HW))
        # Once for all blends: the search of SII takes most of the time.
        outputs = predictor(batch)
        for blend in blends:
            local.measured[blend].append(_measure(tasks, BLENDS[blend](outputs, batch), batch))
        if (first := _first_samples(batch, baseline_samples)) is not None:
            local.baselines.append(_measure_baselines(tasks, first, statistics))
    # Damage is found while reading, so only now.
    local.damaged = list(loader.damaged)
    said = setup.group.all_gather({**vars(local), "damaged": [vars(record) for record in local.damaged]})
    ranks = [_RankValues(**one | {"damaged": [DamageRecord(**record) for record in one["damaged"]]}) for one in said]
    _report_damaged(setup, [record for rank in ranks for record in rank.damaged])
    if not any(rank.ids for rank in ranks):
        raise DataError(
            f"{folder}: no sample of the split {split!r} can be read; run `{shell.collagan('verify', '--deep', folder)}`"
        )
    about = _about_samples(ranks) | perception.describe_features(tasks)
    results = []
    for blend in blends:
        result = _summarize_ranks(tasks, ranks, blend, baseline_samples)
        head = {"split": split, "hole": hole, "blend": blend, "samples": len(result.samples["ids"])}
        results.append(replace(result, metrics={**head, **result.metrics, **about}))
    return results


def measure_batch(
    setup: Setup, predictor: Predict, about: Mapping[str, str], numbers: np.ndarray
) -> tuple[np.ndarray, Measured]:
    """Return (ids, measurements) of the samples of one batch (batches_of), as `evaluate` measures it.

    `about` has `split`, `hole` and `blend`. Samples that cannot be read are left out. Raises ConfigError, DataError.
    """
    loader = setup.loader(about["split"], setup.view(training=False, hole=about["hole"]), _BATCH)
    batch = next(loader.batches(sequential_ids(numbers, _BATCH)), None)
    if batch is None:
        raise DataError(f"{setup.manifest.folder}: none of the samples {', '.join(map(str, numbers))} can be read")
    outputs = BLENDS[about["blend"]](predictor(batch), batch)
    return batch.ids_B.astype(np.int64), _measure(setup.tasks, outputs, batch)


def batches_of(count: int, ranks: int) -> list[np.ndarray]:
    """Return the numbers of the samples in each batch of an evaluation of `count` samples on so many ranks."""
    shares = [order.rank_samples(count, World(rank, ranks)) for rank in range(min(ranks, count))]
    return [numbers for share in shares for numbers, _ in sequential_ids(share, _BATCH)]


def summarize_rows(tasks: dict[str, Task], measured: Measured) -> dict[str, Any]:
    """Return the metrics and standard errors (`se`) of rows by task and name, as they stand in metrics.json."""
    metrics, errors = _summarize(tasks, measured)
    return {**metrics, "se": errors}


def _in_lockstep(setup: Setup, batches: Iterator[Batch], count: int) -> Iterator[Batch]:
    """Yield the batches, with a barrier after each. Collective: every rank takes as many turns as the largest share has."""
    # Without the barriers a slow rank would be awaited at the end for longer than runtime.timeout, and be taken for hung.
    for _ in range(-(-count // (setup.world.size * _BATCH))):
        if (batch := next(batches, None)) is not None:
            yield batch
        setup.group.barrier("an evaluation")


def _blended(outputs: TaskTensors, batch: Batch) -> TaskTensors:
    return {**outputs, "inpainting": poisson.blend(outputs["inpainting"], batch)}


# What happens to a completion before it is measured, by the name of `--blend`.
BLENDS: dict[str, Blend] = {"none": lambda outputs, batch: outputs, "poisson": _blended}


def check_blends(blends: Sequence[str], tasks: Iterable[str]) -> None:
    """Refuse to blend the completions of a model that has none. Raises ConfigError."""
    if any(blend != "none" for blend in blends) and "inpainting" not in tasks:
        raise ConfigError(f"--blend: the model has no completions to blend, only {', '.join(tasks)}")


def _report_damaged(setup: Setup, damaged: list[DamageRecord]) -> None:
    """Name the damaged samples, which were left out. Raises DataError when there are more than data.max_damaged."""
    if setup.world.is_rank0:
        for record in damaged:
            logger.warning(f"warning: {record.reason}; it was left out")
    check_damage_limit(setup.manifest.folder, len(damaged), setup.config.data.max_damaged)


def _about_samples(ranks: Sequence[_RankValues]) -> dict[str, Any]:
    """Facts of a result that no predictor changes: damaged samples, the mean (height, width) of holes at O1 to O6."""
    about: dict[str, Any] = {}
    if damaged := sum(len(rank.damaged) for rank in ranks):
        about["damaged"] = damaged
    sizes = [size for rank in ranks for size in rank.hole_sizes]
    # A picture whose box lies outside it has NaN; np.nanmean would warn if all had.
    if sizes and not np.isnan(extents := np.concatenate(sizes)).all():
        about["hole_size"] = np.nanmean(extents, axis=0).tolist()
    return about


def _measure(tasks: dict[str, Task], outputs: TaskTensors, batch: Batch) -> Measured:
    return {name: tasks[name].measure(output, batch) for name, output in outputs.items()}


def _measure_baselines(tasks: dict[str, Task], batch: Batch, statistics: dict[str, Any]) -> dict[str, Measured]:
    result: dict[str, Measured] = {}
    for name, task in tasks.items():
        for baseline, output in task.baselines(batch, statistics).items():
            result.setdefault(baseline, {})[name] = task.measure(output, batch)
    return result


def _first_samples(batch: Batch, limit: int) -> Batch | None:
    """The samples of a batch whose number is below `limit`, or None. Numbers rise, so they are the first of the batch."""
    count = int((batch.ids_B < limit).sum())
    if count == 0:
        return None
    # A data set without label maps or landmarks has None there.
    tensors = {name: value[:count] for name, value in vars(batch).items() if value is not None}
    return replace(batch, **tensors)


def _concatenate(parts: list[Measured]) -> Measured:
    first = parts[0] if parts else {}
    return {task: {name: np.concatenate([p[task][name] for p in parts]) for name in first[task]} for task in first}


def _summarize_ranks(
    tasks: dict[str, Task], ranks: Sequence[_RankValues], blend: str, baseline_samples: int
) -> Evaluation:
    """The metrics of one blend from what all ranks measured."""
    ids = np.concatenate([batch for rank in ranks for batch in rank.ids])
    # Sorted by sample, so that no sum depends on the number of ranks.
    by_id = np.argsort(ids)
    values = _reordered(_concatenate([batch for rank in ranks for batch in rank.measured[blend]]), by_id)
    metrics, errors = _summarize(tasks, values)
    result: dict[str, Any] = {**metrics, "se": errors}
    baselines = [batch for rank in ranks for batch in rank.baselines]
    if any(baselines):
        first = ids < baseline_samples
        first_by_id = np.argsort(ids[first])
        named = {name: _concatenate([batch[name] for batch in baselines]) for name in baselines[0]}
        result["baselines"] = {name: _summarize(tasks, _reordered(m, first_by_id))[0] for name, m in named.items()}
        count = int(first.sum())
        if count < len(ids):
            subset = _reordered(values, np.arange(count))
            result["baselines_subset"] = {"samples": count, "model": _summarize(tasks, subset)[0]}
    stored = {k: v for task in values.values() for k, v in task.items() if k not in perception.UNSTORED}
    return Evaluation(result, {"ids": ids[by_id]} | stored)


def _reordered(measured: Measured, indices: np.ndarray) -> Measured:
    return {task: {name: values[indices] for name, values in rows.items()} for task, rows in measured.items()}


def _summarize(tasks: dict[str, Task], measured: Measured) -> tuple[dict[str, Any], dict[str, Any]]:
    """(metrics, their standard errors) of one predictor, all tasks together."""
    pairs = [tasks[name].summarize(values) for name, values in measured.items()]
    return {k: v for found, _ in pairs for k, v in found.items()}, {k: v for _, se in pairs for k, v in se.items()}
