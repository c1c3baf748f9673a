"""The parts of a training for one rank of any world size, in this process."""

import numpy as np
import torch

from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.distributed.engine import Engine
from collagan_dist.distributed.group import Group
from collagan_dist.setup import Setup, training_order
from collagan_dist.tasks import build_tasks
from collagan_dist.types import Batch, World
from tests.training.small import small

CPU = torch.device("cpu")


def setup(manifest: Manifest, device: torch.device = CPU, **changes: object) -> Setup:
    """What one rank trains with, without the other ranks' processes: reading needs none."""
    config, group = small(manifest.folder, **changes), Group(World(), device)
    return Setup(config, World(), device, group, Engine(config.runtime, group), manifest, build_tasks(config))


def batches(
    manifest: Manifest, rank: int, size: int, steps: range, kind: str = "block", window: int = 128
) -> list[Batch]:
    part = setup(manifest, schedule__batch=12, hole__kind=kind, data__window=window)
    loader = part.loader("train", part.view(training=True), 12 // size)
    order = training_order(part.config, manifest)
    assert order.fully_shuffled == (window > 2)
    return list(loader.batches(order.step(step, World(rank=rank, size=size)) for step in steps))


def together(manifest: Manifest, size: int, steps: range, **how: object) -> list[Batch]:
    """The batches of one rank, once they were seen to be bit-equal to those of `size` ranks put together."""
    alone = batches(manifest, 0, 1, steps, **how)
    shared = [batches(manifest, rank, size, steps, **how) for rank in range(size)]
    for step in steps:
        for field in ("ids_B", "epoch_B"):
            assert (getattr(alone[step], field) == np.concatenate([getattr(s[step], field) for s in shared])).all()
        for field in ("image_B3HW", "input_B3HW", "hole_B1HW", "label_BHW", "points_BK2", "keys_B2"):
            assert torch.equal(getattr(alone[step], field), torch.cat([getattr(s[step], field) for s in shared])), field
    return alone
