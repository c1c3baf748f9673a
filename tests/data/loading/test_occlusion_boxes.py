import numpy as np
import pytest
import torch

from collagan_dist.config.tree import FIXED_POSITIONS
from collagan_dist.data.loading.occlusion_boxes import OcclusionBoxes, hole_size
from collagan_dist.data.packing.pack import pack
from collagan_dist.types import CLASSES, LANDMARK_FLIP, POSITIONS, Batch
from tests.data.loading.first_batch import CPU, extent, first_batch
from tests.data.packed import recipe
from tests.training.one_rank import setup

# An upright face with u = 40 around (64, 64).
UPRIGHT = torch.tensor([[[46.0, 44], [82, 44], [64, 62], [49, 84], [79, 84]]])


@pytest.mark.parametrize(
    ("name", "box"),
    {
        "O1": (24, 26, 32, 40),  # the eye at (46, 44): half of u above and beside it, 0.3 u below
        "O2": (24, 62, 32, 40),
        "O3": (24, 26, 32, 76),
        "O4": (30, 28, 58, 36),  # from 0.35 u above the eye to 0.1 u below the mouth, left of column 64
        "O5": (30, 64, 58, 36),
        "O6": (74, 31, 32, 66),
    }.items(),
)
def test_boxes_of_an_upright_face_by_hand(name, box):
    assert extent(OcclusionBoxes(UPRIGHT).hole(name, 1, 128, CPU)[0, 0]) == box
    # In half the size, boxes of half the size: no more than the pixel at each edge may change.
    small = extent(OcclusionBoxes((UPRIGHT + 0.5) / 2 - 0.5).hole(name, 1, 64, CPU)[0, 0])
    assert np.abs(np.array(small) - np.array(box) / 2).max() <= 0.5


def test_they_are_40_by_48_on_average():
    sizes = [hole_size(OcclusionBoxes(UPRIGHT).hole(name, 1, 128, CPU))[0] for name in POSITIONS]
    assert np.abs(np.mean(sizes, axis=0) - (40, 48)).max() <= 1.001  # u is 40 here, 39 in photographs
    fixed = np.array([FIXED_POSITIONS[name][2:] for name in POSITIONS])
    assert np.abs(fixed.mean(0) - (40, 48)).max() < 1


@pytest.mark.parametrize("name", POSITIONS)
def test_a_box_is_clipped_at_the_border(name):
    for shift in ([-60.0, 0], [60, 0], [0, -60], [0, 60], [-500, 0]):
        moved = OcclusionBoxes(UPRIGHT + torch.tensor(shift)).hole(name, 1, 128, CPU)[0, 0]
        plain = OcclusionBoxes(UPRIGHT).hole(name, 1, 128, CPU)[0, 0].nonzero() + torch.tensor(shift).flip(0).long()
        inside = ((plain >= 0) & (plain < 128)).all(1)
        assert torch.equal(moved.nonzero(), plain[inside])


@pytest.mark.parametrize("size", [64, 128])
def test_fixed_boxes_scale_with_the_picture(size):
    boxes = {name: (8 * n, 4 * n, 16, 8 + 2 * n) for n, name in enumerate(POSITIONS)}
    for name in POSITIONS:
        hole = OcclusionBoxes(None, boxes).hole(name, 3, size, CPU)
        assert hole.shape == (3, 1, size, size) and hole.dtype == torch.bool
        assert all(extent(h) == tuple(v * size // 128 for v in boxes[name]) for h in hole[:, 0])
    # A pixel belongs to a box that holds its centre: 12.5 to 28 are rows 12 (its centre is at 12.5) to 27.
    odd = OcclusionBoxes(None, {"O1": (25, 27, 31, 38)}).hole("O1", 1, size, CPU)[0, 0]
    assert extent(odd) == ((25, 27, 31, 38) if size == 128 else (12, 13, 16, 19))


def test_hole_size_of_each_sample():
    hole = torch.zeros(3, 1, 16, 16, dtype=torch.bool)
    hole[0, 0, 2:7, 3:5] = True
    hole[1, 0, 0, 15] = True
    assert np.array_equal(hole_size(hole), [[5, 2], [1, 1], [np.nan, np.nan]], equal_nan=True)


# Position: classes that it must hide and classes that it must leave.
PARTS = {
    "O1": (("left_eye", "left_eyebrow"), ("right_eye", "right_eyebrow", "upper_lip", "teeth", "lower_lip")),
    "O2": (("right_eye", "right_eyebrow"), ("left_eye", "left_eyebrow", "upper_lip", "teeth", "lower_lip")),
    "O3": (("left_eye", "right_eye", "left_eyebrow", "right_eyebrow"), ("lower_lip",)),
    "O4": (("left_eye",), ("right_eye", "right_eyebrow")),
    "O5": (("right_eye",), ("left_eye", "left_eyebrow")),
    "O6": (("upper_lip", "teeth", "lower_lip"), ("left_eye", "right_eye", "left_eyebrow", "right_eyebrow")),
}


# Left eye, right eye and the corners of the mouth, as if O2 and O5 were on the left.
LANDMARKS_INSIDE = {
    "O1": (1, 0, 0, 0), "O2": (1, 0, 0, 0), "O3": (1, 1, 0, 0), "O4": (1, 0, 1, 0), "O5": (1, 0, 1, 0), "O6": (0, 0, 1, 1),
}  # fmt: skip


def hidden(hole_B1HW: torch.Tensor, label_BHW: torch.Tensor, name: str) -> np.ndarray:
    """Share of a class's pixels inside the hole, of every picture that has some."""
    mine = label_BHW == CLASSES.index(name)
    count = mine.sum((1, 2))
    return ((mine & hole_B1HW[:, 0]).sum((1, 2))[count > 0] / count[count > 0]).numpy()


def check_parts(batch: Batch, name: str) -> None:
    for part in PARTS[name][0]:
        share = hidden(batch.hole_B1HW, batch.label_BHW, part)
        assert share.mean() > 0.93 and share.min() > 0.3, (name, part, share.mean(), share.min())
    for part in PARTS[name][1]:
        share = hidden(batch.hole_B1HW, batch.label_BHW, part)
        assert not len(share) or (share.mean() < 0.03 and share.max() < 0.6), (name, part, share.mean(), share.max())


@pytest.mark.parametrize("name", POSITIONS)
def test_they_hide_the_named_parts_of_drawn_faces(shards, name):
    """Their heads are tilted by up to 45 degrees."""
    batch = first_batch(shards, hole=name, count=48)
    check_parts(batch, name)
    x, y = batch.points_BK2.round().long().unbind(-1)
    inside = batch.hole_B1HW[torch.arange(len(x))[:, None], 0, y, x].float().mean(0)  # by landmark
    order = list(LANDMARK_FLIP) if name in ("O2", "O5") else list(range(5))  # as if it were the left side's hole
    eyes_and_corners = inside[order][[0, 1, 3, 4]].numpy()
    assert np.abs(eyes_and_corners - LANDMARKS_INSIDE[name]).max() < (0.15 if name in ("O4", "O5") else 0.05)
    assert eyes_and_corners[1] == LANDMARKS_INSIDE[name][1]


def test_photographs(faces, tmp_path):
    """All named parts are hidden, the mean size is the paper's, and the fixed boxes are those of the mean landmarks."""
    photographs = pack(recipe(faces, tmp_path / "out", store_size=176), workers=1)
    sizes, corners = [], []
    for name in POSITIONS:
        batch = first_batch(photographs, 200, image_size=128, hole=name)
        check_parts(batch, name)
        sizes.append(hole_size(batch.hole_B1HW).mean(0))
        mean = OcclusionBoxes(batch.points_BK2.mean(0, keepdim=True)).hole(name, 1, 128, CPU)[0, 0]
        corners.append(np.abs(np.array(extent(mean)) - FIXED_POSITIONS[name]).max())
    assert np.abs(np.mean(sizes, axis=0) - (40, 48)).max() < 1, np.mean(sizes, axis=0)
    assert max(corners) <= 1, corners


def test_a_mirrored_face_has_mirrored_holes(shards):
    batch = first_batch(shards, hole="none")
    mirrored = batch.points_BK2[:, list(LANDMARK_FLIP)].clone()
    mirrored[..., 0] = 63 - mirrored[..., 0]
    for name, other in {"O1": "O2", "O2": "O1", "O3": "O3", "O4": "O5", "O5": "O4", "O6": "O6"}.items():
        hole = OcclusionBoxes(batch.points_BK2).hole(name, 32, 64, CPU)
        assert torch.equal(OcclusionBoxes(mirrored).hole(other, 32, 64, CPU).flip(3), hole)


def test_positions_of_the_configuration_reach_the_view(shards):
    fixed = dict(FIXED_POSITIONS, O2=(1, 2, 3, 4))
    part = setup(
        shards, data={"image_size": 32, "face_square": 2.5, "shards": str(shards.folder)}, hole__fill="mean",
        model={"name": "sii", "tasks": ["inpainting"], "concentrated": False, "output_bias": "zero"},  # of any size
        evaluate={"positions": "fixed", "size": 64, "fixed": fixed},
    )  # fmt: skip
    view, training = part.view(training=False, hole="O2"), part.view(training=True)
    assert (view.image_size, training.image_size, view.hole) == (64, 32, "O2")
    assert (view.positions, view.fixed) == ("fixed", fixed)
    assert view.fill == training.fill == "mean" and view.face_square == training.face_square == 2.5


@pytest.mark.gpu
@pytest.mark.parametrize("name", POSITIONS)
def test_a_gpu_makes_the_same_holes(shards, name):
    points, cuda = first_batch(shards).points_BK2, torch.device("cuda")
    for here, there in ((OcclusionBoxes(points), OcclusionBoxes(points.cuda())), (OcclusionBoxes(), OcclusionBoxes())):
        assert torch.equal(here.hole(name, 32, 64, CPU), there.hole(name, 32, 64, cuda).cpu())
