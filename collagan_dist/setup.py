"""Builds the parts of a run from its configuration: device, ranks, engine, data set and tasks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from collagan_dist.config.tree import Augment, Config
from collagan_dist.data.loading.decode import Decoders
from collagan_dist.data.loading.loader import Loader, View
from collagan_dist.data.loading.order import BatchIds, Order
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.data.shards.shard_reader import SplitReader
from collagan_dist.distributed import devices
from collagan_dist.distributed.engine import Engine
from collagan_dist.distributed.engines import build_engine
from collagan_dist.distributed.group import Group
from collagan_dist.distributed.preflight import preflight
from collagan_dist.errors import DataError
from collagan_dist.tasks import build_tasks, needed_annotations
from collagan_dist.tasks.base import Task
from collagan_dist.types import CLASSES, Batch, World

_MEAN_SAMPLES = 256  # from which the targets' means are computed
_MEAN_BATCH = 16  # a constant, so that the sum does not depend on the world size
_STATISTICS_SAMPLES, _STATISTICS_BATCH = 512, 32
TEST_SEED = 0  # of holes and fills at test: the same for all models, whatever their own seed


@dataclass(frozen=True)
class Setup:
    """The parts of a run that training and evaluation share, for one rank."""

    config: Config
    world: World
    device: torch.device
    group: Group
    engine: Engine
    manifest: Manifest
    tasks: dict[str, Task]

    @cached_property
    def decoders(self) -> Decoders:
        return Decoders(devices.thread_count(self.world, self.config.data.threads), self.device)

    def split(self, name: str) -> SplitReader:
        """Return a split of the data set. Raises DataError if it is empty or missing."""
        split = SplitReader(self.manifest, name)
        if not len(split):
            raise DataError(f"{self.manifest.folder}: the split {name!r} is empty")
        return split

    def view(self, training: bool, hole: str | None = None) -> View:
        """Return the view of samples in training, or in evaluation (at evaluate.size, augmented if evaluate.augment)."""
        config = self.config
        size = config.data.image_size
        labels, points = needed_annotations(self.tasks.values())
        return View(
            image_size=size if training else config.evaluate.size or size,
            hole=hole or config.hole.kind,
            seed=config.seed if training else TEST_SEED,
            augment=config.data.augment if training else _augment_at_test(config),
            training=training,
            points=points,
            labels=labels,
            fill=config.hole.fill,
            positions=config.evaluate.positions,
            fixed=config.evaluate.fixed,
            face_square=config.data.face_square,
        )

    def loader(self, split: str, view: View, rank_batch: int) -> Loader:
        """Return a loader of a split; of `rank_batch` samples at a time."""
        return Loader(self.split(split), view, rank_batch, self.decoders, self.config.data.max_damaged)

    def first_batch(self, split: str, view: View, rows: int) -> Batch:
        """Return the first `rows` samples of a split, or as many as it has. Raises DataError if all of them are damaged."""
        loader = self.loader(split, view, rows)
        batch = next(loader.batches(sequential_ids(np.arange(min(rows, len(loader.split))), rows)), None)
        if batch is None:
            raise DataError(
                f"{loader.damaged[0].reason}; and so are all of the first {rows} samples of the split {split!r}"
            )
        return batch

    @cached_property
    def training_statistics(self) -> dict[str, np.ndarray]:
        """Statistics of training samples that trivial baselines use, of views by the law of the evaluation's.

        These are `mean_points` (K, 2) in pixels, and `mean_labels` (H, W), the most frequent class of each pixel; without the annotation
        they are absent.
        """
        loader = self.loader(self.config.data.split, self.view(training=False, hole="none"), _STATISTICS_BATCH)
        numbers = np.arange(min(_STATISTICS_SAMPLES, len(loader.split)))
        classes = np.arange(len(CLASSES), dtype=np.uint8)[:, None, None]
        points: list[np.ndarray] = []
        counts: Any = 0  # (C, H, W)
        for batch in loader.batches(sequential_ids(numbers, _STATISTICS_BATCH)):
            if batch.points_BK2 is not None:
                points.append(batch.points_BK2.double().cpu().numpy())
            if batch.label_BHW is not None:
                counts += (batch.label_BHW.cpu().numpy()[:, None] == classes).sum(0)
        found = {"mean_points": np.concatenate(points).mean(0)} if points else {}
        return found | ({"mean_labels": counts.argmax(0)} if np.ndim(counts) else {})


def build_setup(config: Config, world: World, manifest: Manifest) -> Setup:
    """Build device, process group and engine of this rank. Collective; raises ClusterError if ranks differ in their setup."""
    device = devices.pick_device(world)
    devices.configure_torch(devices.thread_count(world, config.runtime.threads), config.deterministic)
    # An error before this line, on one rank alone, leaves the others waiting for it up to runtime.rendezvous_timeout.
    group = Group(world, device, config.runtime.timeout, config.runtime.rendezvous_timeout)
    try:
        preflight(group, config, manifest.hash)
        return Setup(config, world, device, group, build_engine(config.runtime, group), manifest, build_tasks(config))
    except BaseException as error:  # the others must hear of it, whatever it is
        group.close(error)
        raise


def training_order(config: Config, manifest: Manifest) -> Order:
    """Return the order in which training visits its samples."""
    return Order(
        manifest.samples(config.data.split), config.schedule.batch, config.seed,
        manifest.recipe["samples_per_shard"], config.data.window
    )  # fmt: skip


def _augment_at_test(config: Config) -> Augment | None:
    # A mirrored face is another face, not another crop of the same.
    return config.data.augment.model_copy(update={"flip": 0.0}) if config.evaluate.augment else None


def sequential_ids(numbers: np.ndarray, batch: int) -> Iterator[BatchIds]:
    """Yield the given samples once, in order, in batches."""
    for start in range(0, len(numbers), batch):
        ids = numbers[start : start + batch]
        # Views that are not of training ignore the epoch: every call sees the same holes.
        yield ids, np.zeros(len(ids), np.int64)


def target_means(setup: Setup) -> torch.Tensor:
    """Return (channels,) means of all tasks' targets over the first training samples."""
    # Targets are of whole images: no hole needs to be drawn. Nothing of `evaluate` changes what is learned.
    view = replace(setup.view(training=False, hole="none"), augment=None)
    loader = setup.loader(setup.config.data.split, view, _MEAN_BATCH)
    numbers = np.arange(min(_MEAN_SAMPLES, len(loader.split)))
    total, count = None, 0  # the last batch is smaller, so batches do not weigh the same
    for samples in loader.batches(sequential_ids(numbers, _MEAN_BATCH)):
        targets = torch.cat([task.target(samples) for task in setup.tasks.values()], dim=1)
        sums = targets.double().mean(dim=(2, 3)).sum(0)
        total = sums if total is None else total + sums
        count += len(targets)
    assert total is not None
    return (total / count).float()
