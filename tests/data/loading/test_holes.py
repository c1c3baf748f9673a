from typing import get_args

import numpy as np
import pytest
import torch

from collagan_dist import rng
from collagan_dist.data.loading import holes
from collagan_dist.data.loading.occlusion_boxes import OcclusionBoxes
from collagan_dist.types import EvaluationHole


def keys(count: int) -> torch.Tensor:
    return torch.from_numpy(rng.tensor_keys(rng.key64(1, "holes", np.arange(count))))


@pytest.mark.parametrize("size", [64, 128])
def test_block_is_half_the_side_anywhere_inside(size):
    hole = holes.block(keys(4000), size)[:, 0]
    assert (hole.sum((1, 2)) == (size // 2) ** 2).all()  # 25 %
    rows, columns = hole.any(2), hole.any(1)
    assert (rows.sum(1) == size // 2).all() and (columns.sum(1) == size // 2).all()
    corner = torch.stack([rows.int().argmax(1), columns.int().argmax(1)])
    assert corner.min() == 0 and corner.max() == size // 2
    counts = torch.bincount(corner.flatten(), minlength=size // 2 + 1).float()
    assert (counts - 8000 / len(counts)).abs().max() < 6 * (8000 / len(counts)) ** 0.5


@pytest.mark.parametrize("size", [64, 128])
def test_pattern_covers_20_to_30_percent(size):
    share = holes.pattern(keys(300), size).float().mean((1, 2, 3))
    assert share.min() >= 0.2 and share.max() <= 0.3
    assert len({tuple(h.flatten().tolist()) for h in holes.pattern(keys(50), size)}) == 50


def test_noise_hides_80_percent_of_pixels_alike_in_all_channels():
    hole = holes.noise(keys(64), 128)
    assert hole.shape == (64, 1, 128, 128)
    assert abs(hole.float().mean() - 0.8) < 0.002
    neighbours = (hole[..., 1:] & hole[..., :-1]).float().mean()
    assert abs(neighbours - 0.64) < 0.004


def test_the_table_has_every_kind_of_hole_with_one_signature():
    assert set(holes.HOLES) == set(get_args(EvaluationHole))
    points = torch.rand(3, 5, 2) * 64
    for kind, make in holes.HOLES.items():
        for more in ((), (None,), (OcclusionBoxes(points),)):
            hole = make(keys(3), 64, *more)
            assert (hole.shape, hole.dtype) == ((3, 1, 64, 64), torch.bool)
            assert torch.equal(hole, make(keys(3), 64, *more))
        around = torch.equal(make(keys(3), 64, OcclusionBoxes(points)), make(keys(3), 64))
        assert around == (not kind.startswith("O")), kind


@pytest.mark.parametrize("kind", ["block", "noise", "pattern", "O1", "O4", "given"])
def test_fills(kind):
    image = torch.full((8, 3, 64, 64), 0.3)
    hole = holes.HOLES.get(kind, holes.block)(keys(8), 64)
    filled = {fill: holes.occlude(image, hole, kind, keys(8), fill) for fill in ("paper", "noise", "zero", "mean")}
    for x in filled.values():
        assert (x.masked_select(~hole) == 0.3).all() and x.dtype == torch.float32
    assert (filled["zero"].masked_select(hole) == 0).all()
    assert torch.equal(filled["paper"], filled["zero" if kind == "pattern" else "noise"])
    noise = filled["noise"].masked_select(hole)
    assert noise.min() < -0.99 and noise.max() > 0.99
    assert abs(noise.mean()) < 0.03 and abs(noise.var() - 1 / 3) < 0.02 and len(noise.unique()) > 0.9 * len(noise)
    assert torch.equal(filled["noise"], holes.occlude(image, hole, kind, keys(8), "noise"))
    for channel, value in enumerate((117, 104, 123)):  # R, G, B as the Context Encoder writes them
        inside = filled["mean"][:, channel : channel + 1].masked_select(hole)
        assert torch.allclose(inside, torch.tensor(2 * value / 255 - 1)) and len(inside) == hole.sum()


def test_no_hole_changes_nothing():
    image = torch.rand(2, 3, 64, 64)
    assert torch.equal(holes.occlude(image, holes.no_hole(keys(2), 64), "none", keys(2)), image)
