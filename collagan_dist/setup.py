"""From a configuration to the parts of a run, in small steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from collagan_dist.config.tree import Config
from collagan_dist.data.loading import order
from collagan_dist.data.loading.loader import Loader, View
from collagan_dist.data.loading.order import BatchIds, Order
from collagan_dist.data.shards import remote
from collagan_dist.data.shards.manifest import Manifest, read_manifest
from collagan_dist.data.shards.quick_check import quick_check
from collagan_dist.data.shards.shard_reader import SplitReader
from collagan_dist.distributed import devices
from collagan_dist.distributed.engine import Engine
from collagan_dist.distributed.engines import build_engine
from collagan_dist.distributed.group import Group
from collagan_dist.distributed.preflight import preflight
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.tasks import build_tasks
from collagan_dist.tasks.base import Task
from collagan_dist.types import Batch, World

_MEAN_SAMPLES = 256  # from which the targets' means are taken, in batches whose size no world size changes
_MEAN_BATCH = 16
TEST_SEED = 0  # of holes and fills at test: all models meet the same ones, whatever their own seed


@dataclass(frozen=True)
class Setup:
    """What training and evaluation share."""

    config: Config
    world: World
    device: torch.device
    group: Group
    engine: Engine
    manifest: Manifest
    tasks: dict[str, Task]

    @property
    def threads(self) -> int:
        return devices.thread_count(self.world, self.config.data.threads)

    def split(self, name: str) -> SplitReader:
        split = SplitReader(self.manifest, name)
        if not len(split):
            raise DataError(f"{self.manifest.folder}: the split {name!r} is empty")
        return split

    def view(self, training: bool, hole: str | None = None) -> View:
        """How samples are looked at in training, or in evaluation (without augmentation, at evaluate.size)."""
        config = self.config
        size = config.data.image_size
        return View(
            image_size=size if training else config.evaluate.size or size,
            hole=hole or config.hole.kind,
            seed=config.seed if training else TEST_SEED,
            augment=config.data.augment if training else None,
            points=any(task.needs_points for task in self.tasks.values()),
            labels=any(task.needs_labels for task in self.tasks.values()),
            fill=config.hole.fill,
            positions=config.evaluate.positions,
            fixed=config.evaluate.fixed,
            face_square=config.data.face_square,
        )

    def loader(self, split: str, view: View, batch: int) -> Loader:
        return Loader(self.split(split), view, batch, self.threads, self.device, self.config.data.max_damaged)

    def first_batch(self, split: str, view: View, rows: int) -> Batch:
        """The first `rows` samples of a split, or as many as it has. Raises DataError when all of them are damaged."""
        loader = self.loader(split, view, rows)
        batch = next(loader.batches(sequential_ids(np.arange(min(rows, len(loader.split))), rows)), None)
        if batch is None:
            raise DataError(
                f"{loader.damaged[0].reason}; and so are all of the first {rows} samples of the split {split!r}"
            )
        return batch


def open_shards(config: Config) -> Manifest:
    """The data set of a configuration, quickly checked: nothing starts on a damaged one."""
    if config.data.shards is None:
        raise ConfigError("data.shards is not set: give the folder of shards by --data (make one with `collagan pack`)")
    manifest = read_manifest(remote.open_location(config.data.shards, config.data.cache))
    quick_check(manifest)
    return manifest


def build_setup(config: Config, world: World, manifest: Manifest) -> Setup:
    """Device, process group and engine of this rank. Collective; raises ClusterError where ranks do not belong together.

    What failed before, on one rank alone, leaves the others waiting for it: at most runtime.rendezvous_timeout.
    """
    device = devices.pick_device(world)
    devices.configure_torch(devices.thread_count(world, config.runtime.threads), config.deterministic)
    group = Group(world, device, config.runtime.timeout, config.runtime.rendezvous_timeout)
    try:
        preflight(group, config, manifest.hash)
        return Setup(config, world, device, group, build_engine(config.runtime, group), manifest, build_tasks(config))
    except BaseException as error:
        group.close(error)
        raise


def planned_steps(config: Config, samples: int) -> int:
    """Steps of the whole run."""
    return config.schedule.steps or order.total_steps(samples, config.schedule.batch, config.schedule.epochs)


def training_order(config: Config, manifest: Manifest) -> Order:
    return Order(
        manifest.samples(config.data.split), config.schedule.batch, config.seed,
        manifest.recipe["samples_per_shard"], config.data.window,
    )  # fmt: skip


def sequential_ids(numbers: np.ndarray, batch: int) -> Iterator[BatchIds]:
    """The given samples once, in order."""
    for start in range(0, len(numbers), batch):
        ids = numbers[start : start + batch]
        yield ids, np.zeros(len(ids), np.int64)


def target_means(setup: Setup) -> torch.Tensor:
    """(channels,) mean of every task's target over the first training samples: where the output layer starts."""
    loader = setup.loader(setup.config.data.split, setup.view(training=False, hole="none"), _MEAN_BATCH)
    numbers = np.arange(min(_MEAN_SAMPLES, len(loader.split)))
    total, count = None, 0
    for part in loader.batches(sequential_ids(numbers, _MEAN_BATCH)):
        targets = torch.cat([task.target(part) for task in setup.tasks.values()], dim=1)
        sums = targets.double().mean(dim=(2, 3)).sum(0)
        total = sums if total is None else total + sums
        count += len(targets)
    assert total is not None
    return (total / count).float()
