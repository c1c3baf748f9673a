import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from collagan_dist.config.tree import Augment
from collagan_dist.data.face_square import stored_square
from collagan_dist.data.loading import geometry
from collagan_dist.data.shards.shard_reader import StoredSample
from collagan_dist.types import CLASS_FLIP, CLASSES, LANDMARK_FLIP
from tests.data.loading.first_batch import first_batch

WIDE = Augment(shift=0.3, rotate=40, scale=0.4, flip=0.5)  # leaves the canvas, so that reflection is tested too


def stored(landmarks: list[list[float]], width: int, height: int) -> StoredSample:
    return StoredSample(
        "k", 1, np.zeros(0, np.uint8), None, landmarks, width, height, stored_square(landmarks, None, width, height)
    )


def fold(x: np.ndarray, size: int) -> np.ndarray:
    """Reflection at the outer pixel centres, written out: walk back and forth."""
    x = np.abs(x) % (2 * (size - 1))
    return np.where(x > size - 1, 2 * (size - 1) - x, x)


def as_on_a_gpu(image: torch.Tensor, label: torch.Tensor, matrix: np.ndarray, flip: np.ndarray, size: int) -> tuple:
    """The code of devices other than a CPU, on a CPU."""
    inside = bool(geometry.stays_inside(matrix, size, image.shape[1]).all())
    grid = geometry.sample_grid(torch.from_numpy(matrix), inside, size, image.shape[1])
    labels = geometry.swap_labels(geometry.warp_labels(label, grid), torch.from_numpy(flip))
    return geometry.warp_image(image, grid), labels


@pytest.mark.parametrize("warp", [geometry.warp, as_on_a_gpu])
@pytest.mark.parametrize("augment", [None, Augment(), WIDE])
def test_image_labels_and_landmarks_as_numpy_moves_them(augment, warp):
    rng = np.random.default_rng(0)
    batch, canvas, view = 6, 88, 64
    image = rng.integers(0, 256, (batch, 11, 11, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    label = rng.integers(0, len(CLASSES), (batch, canvas, canvas)).astype(np.uint8)
    points = np.array([[30.0, 35], [56, 33], [44, 48], [34, 60], [53, 61]]) + rng.normal(0, 2, (batch, 5, 2))
    drawn = geometry.draw_augmentation(np.arange(1, batch + 1).astype(np.uint64) * np.uint64(2**60), augment)
    shift, angle, scale, flip = drawn
    augmentations = (geometry.Augmentation(*how) for how in zip(*drawn, strict=True))
    samples = (stored(one.tolist(), canvas, canvas) for one in points)
    matrix = np.stack([geometry.view_to_stored(s, view, a) for s, a in zip(samples, augmentations, strict=True)])
    images, got_label = warp(torch.from_numpy(image), torch.from_numpy(label), matrix, flip, view)
    got_image = (images.permute(0, 2, 3, 1).numpy() + 1) * 127.5
    got_points = geometry.move_points(points, np.linalg.inv(matrix), flip)
    for i in range(batch):
        centre = (points[i].min(0) + points[i].max(0)) / 2
        side = 3.2 * (points[i].max(0) - points[i].min(0)).max()
        v, u = np.mgrid[0:view, 0:view]
        unit = np.stack([(u + 0.5) / view - 0.5, (v + 0.5) / view - 0.5])
        if flip[i]:
            unit[0] = -unit[0]
        turn = scale[i] * np.array([[np.cos(angle[i]), -np.sin(angle[i])], [np.sin(angle[i]), np.cos(angle[i])]])
        at = centre[:, None, None] + side * (np.einsum("rc,chw->rhw", turn, unit) + shift[i][:, None, None])
        x, y = fold(at[0], canvas), fold(at[1], canvas)
        for c in range(3):
            expected = map_coordinates(image[i, ..., c].astype(float), [y, x], order=1)
            assert np.abs(expected - got_image[i, ..., c]).max() < 0.02
        labels = label[i][np.floor(y + 0.5).astype(int), np.floor(x + 0.5).astype(int)]
        assert (got_label[i].numpy() == (np.array(CLASS_FLIP)[labels] if flip[i] else labels)).all()
        # A landmark moved forwards must be sampled from where it was.
        source = points[i][list(LANDMARK_FLIP)] if flip[i] else points[i]
        unit = (got_points[i] + 0.5) / view - 0.5
        unit[:, 0] *= -1 if flip[i] else 1
        assert np.abs(centre + side * (unit @ turn.T + shift[i]) - source).max() < 0.01


def test_a_view_over_any_one_border_is_reflected_there():
    for x, y in ((40, 10), (-20, 10), (10, 40), (10, -20), (15, 15)):
        matrix = np.array([[[1.0, 0, x], [0, 1, y], [0, 0, 1]]])
        inside = bool(geometry.stays_inside(matrix, 64, 88).all())
        grid = geometry.sample_grid(torch.from_numpy(matrix), inside, 64, 88)[0].numpy()
        assert (grid[0, :, 0] == fold(np.arange(64.0) + x, 88)).all()
        assert (grid[:, 0, 1] == fold(np.arange(64.0) + y, 88)).all()


def test_augmentation_stays_in_its_ranges():
    keys = np.arange(5000).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    shift, angle, scale, flip = geometry.draw_augmentation(keys, Augment())
    for drawn, limit in ((shift, 0.05), (np.rad2deg(angle), 5), (scale - 1, 0.1)):
        assert limit * 0.98 < drawn.max() <= limit * 1.0001 and -limit * 1.0001 <= drawn.min() < -limit * 0.98
    assert abs(flip.mean() - 0.5) < 0.03


def test_the_margin_holds_every_augmented_view():
    sample = stored([[170.0, 175], [206, 175], [188, 190], [173, 217], [203, 217]], 400, 400)
    corners = np.array([[x, y, 1] for x in (-0.5, 127.5) for y in (-0.5, 127.5)])
    top, left, bottom, right = geometry.canvas_region(sample)
    for x, y, turn, zoom in itertools.product((-1, 1), repeat=4):
        augmentation = geometry.Augmentation(0.05 * np.array([x, y]), np.deg2rad(5 * turn), 1 + 0.1 * zoom, False)
        at = (corners @ geometry.view_to_stored(sample, 128, augmentation).T)[:, :2] + 0.5
        assert (at > (left - 0.2, top - 0.2)).all() and (at < (right + 0.2, bottom + 0.2)).all()


def test_a_clipped_region_maps_where_its_pixels_are():
    """A face at the border: its region ends with the picture, and the canvas is stretched, not shifted."""
    sample = stored([[10.0, 40], [60, 40], [35, 60], [15, 85], [55, 85]], 100, 120)
    region = geometry.canvas_region(sample)
    assert region[1] == 0.0
    matrix = geometry.region_to_canvas(region[None], 176)[0]
    edges = np.array([[region[1] - 0.5, region[0] - 0.5, 1], [region[3] - 0.5, region[2] - 0.5, 1]]) @ matrix.T
    assert np.allclose(edges[:, :2], [[-0.5, -0.5], [175.5, 175.5]])


def test_a_flipped_view_is_the_plain_one_mirrored_with_left_and_right_exchanged(shards):
    still = {"shift": 0.0, "rotate": 0.0, "scale": 0.0}
    plain, mirrored = (first_batch(shards, augment=Augment(**still, flip=p)) for p in (0.0, 1.0))
    assert (plain.image_B3HW - mirrored.image_B3HW.flip(3)).abs().max() < 2e-2
    table = torch.tensor(CLASS_FLIP, dtype=torch.uint8)
    same = (table[mirrored.label_BHW.flip(2).long()] == plain.label_BHW).float().mean()
    assert same > 0.995  # nearest neighbours of the few pixel centres that fall between two
    back = mirrored.points_BK2[:, list(LANDMARK_FLIP)]
    back[..., 0] = 63 - back[..., 0]
    assert (back - plain.points_BK2).abs().max() < 1e-3


def test_face_square_moves_picture_labels_and_points_alike(shards):
    still = Augment(shift=0.0, rotate=0.0, scale=0.0, flip=0.0)
    plain, near = (first_batch(shards, augment=still, face_square=f) for f in (3.2, 2.4))
    middle = (near.points_BK2 - 31.5) * 0.75 + 31.5
    assert (middle - plain.points_BK2).abs().max() < 1e-3
    small = torch.nn.functional.interpolate(near.image_B3HW, 48, mode="area")
    assert (small - plain.image_B3HW[..., 8:56, 8:56]).abs().mean() < 0.04
    labels = torch.nn.functional.interpolate(near.label_BHW[:, None].float(), 48)[:, 0]
    assert (labels == plain.label_BHW[:, 8:56, 8:56]).float().mean() > 0.9
