from typing import get_args

import numpy as np
import pytest
import torch
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

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


# (top, left, height, width) in a picture of 64x64.
BOXES = {
    "inside": (16, 20, 32, 32),
    "border": (16, 0, 32, 32),
    "corner": (32, 32, 32, 32),
    "band": (8, 0, 30, 64),
    "all but a row": (1, 0, 63, 64),
}


def box(name: str) -> torch.Tensor:
    top, left, height, width = BOXES[name]
    hole = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    hole[..., top : top + height, left : left + width] = True
    return hole


def smoothed(image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    return holes.occlude(image, hole, "given", keys(len(image)), "smooth")


def harmonic(values_HW: np.ndarray, hole_HW: np.ndarray) -> np.ndarray:
    """Solve Laplace's equation in the hole: a pixel is the mean of those neighbours that lie in the picture."""
    number = np.cumsum(hole_HW).reshape(hole_HW.shape) - 1
    matrix, right = lil_matrix((hole_HW.sum(),) * 2), np.zeros(hole_HW.sum())
    for (r, c), i in zip(np.argwhere(hole_HW), range(len(right)), strict=True):
        for at in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
            if min(at) >= 0 and max(at) < len(hole_HW):
                matrix[i, i] += 1
                if hole_HW[at]:
                    matrix[i, number[at]] = -1
                else:
                    right[i] += values_HW[at]
    result = values_HW.copy()
    result[hole_HW] = spsolve(matrix.tocsr(), right)
    return result


@pytest.mark.parametrize("name", BOXES)
def test_smooth_fill_is_about_harmonic_and_changes_nothing_outside(name):
    hole = box(name)
    at = torch.linspace(-1, 1, 64)
    image = torch.stack([at * at[:, None], torch.sin(3 * at + at[:, None]), at.expand(64, 64)])[None]
    filled = smoothed(image, hole)
    inside = hole.expand_as(image)
    assert torch.equal(filled[~inside], image[~inside])
    hidden = hole[0, 0].numpy()
    ours, constant = 0.0, 0.0  # sums over the hole of the distance from the harmonic function
    for before, after in zip(image[0].double().numpy(), filled[0].double().numpy(), strict=True):
        visible, x, expected = before[~hidden], after[hidden], harmonic(before, hidden)[hidden]
        assert visible.min() <= x.min() and x.max() <= visible.max()
        ours += abs(x - expected).sum()
        constant += abs(visible.mean() - expected).sum()
    assert ours < 0.5 * constant


@pytest.mark.parametrize("kind", ["block", "pattern", "noise", "O5"])
def test_smooth_fill_depends_on_the_sample_alone(kind):
    image = torch.from_numpy(np.random.default_rng(3).uniform(-1, 1, (6, 3, 64, 64)).astype(np.float32))
    hole = holes.HOLES[kind](keys(6), 64)
    together = smoothed(image, hole)
    for parts in ((1,) * 6, (2, 4), (3, 3)):
        assert torch.equal(
            torch.cat([smoothed(*part) for part in zip(image.split(parts), hole.split(parts), strict=True)]), together
        )
    hidden = torch.where(hole, torch.rand(6, 3, 64, 64), image)
    assert torch.equal(smoothed(hidden, hole), together)  # what a hole hides is not seen


@pytest.mark.parametrize("size", [1, 2, 33, 64, 100])
def test_smooth_fill_of_extreme_holes(size):
    image = torch.full((2, 3, size, size), -0.7)
    empty = torch.zeros(2, 1, size, size, dtype=torch.bool)
    assert torch.equal(smoothed(image, empty), image)
    assert torch.equal(smoothed(image, ~empty), torch.zeros_like(image))  # grey where nothing is visible
    one = ~empty
    one[:, :, -1, size // 2] = False
    assert torch.allclose(smoothed(image, one), image, atol=1e-6)
