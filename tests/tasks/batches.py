"""A batch of random images with annotations."""

import numpy as np
import torch

from collagan_dist import rng
from collagan_dist.data.loading import holes
from collagan_dist.types import CLASSES, LANDMARKS, Batch


def batch(count: int = 4, size: int = 32, kind: str = "block") -> Batch:
    torch.manual_seed(0)
    keys = torch.from_numpy(rng.tensor_keys(rng.key64(1, np.arange(count))))
    image = torch.nn.functional.interpolate(torch.rand(count, 3, 6, 6) * 2 - 1, size, mode="bilinear")
    hole = holes.HOLES[kind](keys, size)
    label = torch.randint(0, len(CLASSES), (count, size, size), dtype=torch.uint8)
    label[0][label[0] == 8] = 0
    points = torch.rand(count, len(LANDMARKS), 2) * (size - 9) + 4
    return Batch(
        image, holes.occlude(image, hole, kind, keys), hole, label, points, np.arange(count), np.zeros(count), keys
    )
