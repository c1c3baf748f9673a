"""The first batch of the train split by a view that a test asks for."""

import numpy as np
import torch

from collagan_dist.config.tree import Box
from collagan_dist.data.loading.decode import Decoders
from collagan_dist.data.loading.loader import Loader, View
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.data.shards.shard_reader import SplitReader
from collagan_dist.types import Batch

CPU = torch.device("cpu")


def extent(hole_HW: torch.Tensor) -> Box:
    """(top, left, height, width) of a hole, which must be a whole box."""
    rows, columns = hole_HW.any(1).nonzero().flatten(), hole_HW.any(0).nonzero().flatten()
    box = (int(rows[0]), int(columns[0]), len(rows), len(columns))
    assert hole_HW.sum() == box[2] * box[3]
    return box


def first_batch(manifest: Manifest, count: int = 32, **view: object) -> Batch:
    part = SplitReader(manifest, "train")
    ids = np.arange(min(count, len(part)))
    loader = Loader(part, View(**{"image_size": 64, "hole": "none", "seed": 0, **view}), len(ids), Decoders(1, CPU))
    return next(loader.batches(iter([(ids, np.zeros(len(ids), np.int64))])))
