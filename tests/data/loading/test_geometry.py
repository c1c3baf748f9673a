import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from collagan_dist.config.tree import Augment
from collagan_dist.data.loading import geometry
from collagan_dist.data.loading.loader import Loader, View
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.data.shards.shard_reader import SplitReader, StoredSample
from collagan_dist.types import CLASS_FLIP, CLASSES, LANDMARK_FLIP

WIDE = Augment(shift=0.3, rotate=40, scale=0.4, flip=0.5)  # leaves the canvas, so that reflection is tested too


def stored(landmarks: list[list[float]] | None, width: int = 176, height: int = 176) -> StoredSample:
    return StoredSample("k", 1, np.zeros(0, np.uint8), None, landmarks, width, height)


def fold(x: np.ndarray, size: int) -> np.ndarray:
    """Reflection at the outer pixel centres, written out: walk back and forth."""
    x = np.abs(x) % (2 * (size - 1))
    return np.where(x > size - 1, 2 * (size - 1) - x, x)


def as_on_a_gpu(image: torch.Tensor, label: torch.Tensor, matrix: np.ndarray, flip: np.ndarray, size: int) -> tuple:
    """The code of devices other than a CPU, on a CPU."""
    grid = geometry.sample_grid(matrix, size, image.shape[1], image.device)
    labels = geometry.swap_labels(geometry.warp_labels(label, grid), torch.from_numpy(flip))
    return geometry.warp_image(image, grid), labels


@pytest.mark.parametrize("warp", [geometry.warp, as_on_a_gpu])
@pytest.mark.parametrize("augment", [None, Augment(), WIDE])
def test_image_labels_and_landmarks_as_numpy_moves_them(augment, warp):
    rng = np.random.default_rng(0)
    batch, canvas, view = 6, 88, 64
    smooth = rng.uniform(0, 255, (batch, 12, 12, 3))
    image = np.stack(
        [np.stack([np.kron(s[..., c], np.ones((8, 8)))[:canvas, :canvas] for c in range(3)], -1) for s in smooth]
    ).astype(np.uint8)
    image = np.pad(image, ((0, 0), (0, canvas - image.shape[1]), (0, canvas - image.shape[2]), (0, 0)), mode="edge")
    label = rng.integers(0, len(CLASSES), (batch, canvas, canvas)).astype(np.uint8)
    points = np.array([[30.0, 35], [56, 33], [44, 48], [34, 60], [53, 61]]) + rng.normal(0, 2, (batch, 5, 2))
    drawn = geometry.draw_augmentation(np.arange(1, batch + 1).astype(np.uint64) * np.uint64(2**60), augment)
    shift, angle, scale, flip = drawn
    matrix = np.stack(
        [
            geometry.view_to_stored(stored(one.tolist(), 88, 88), view, geometry.Augmentation(*how))
            for one, how in zip(points, zip(*drawn, strict=True), strict=True)
        ]
    )
    images, labels = warp(torch.from_numpy(image), torch.from_numpy(label), matrix, flip, view)
    got_image = (images.permute(0, 2, 3, 1).numpy() + 1) * 127.5
    got_label = labels.numpy()
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
        assert (got_label[i] == (np.array(CLASS_FLIP)[labels] if flip[i] else labels)).all()
        # A landmark moved forwards must be sampled from where it was.
        source = points[i][list(LANDMARK_FLIP)] if flip[i] else points[i]
        unit = (got_points[i] + 0.5) / view - 0.5
        unit[:, 0] *= -1 if flip[i] else 1
        assert np.abs(centre + side * (unit @ turn.T + shift[i]) - source).max() < 0.01


@pytest.mark.parametrize("shift", [(30.0, 0.0), (-30.0, 0.0), (0.0, 30.0), (0.0, -30.0), (5.0, 5.0)])
def test_a_view_over_any_one_border_is_reflected_there(shift):
    matrix = np.array([[[1.0, 0, 10 + shift[0]], [0, 1, 10 + shift[1]], [0, 0, 1]]])
    grid = geometry.sample_grid(matrix, 64, 88, torch.device("cpu"))[0].numpy()
    for axis in (0, 1):
        straight = np.arange(64) + 10 + shift[axis]
        assert (grid[0, :, 0] if axis == 0 else grid[:, 0, 1]).tolist() == fold(straight, 88).tolist()


def test_augmentation_stays_in_its_ranges():
    shift, angle, scale, flip = geometry.draw_augmentation(
        np.arange(5000).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15), Augment()
    )
    assert np.abs(shift).max() <= 0.05 and np.abs(shift).max() > 0.049
    assert np.abs(np.rad2deg(angle)).max() <= 5 and np.abs(np.rad2deg(angle)).max() > 4.9
    assert scale.min() >= 0.9 and scale.max() <= 1.1 and scale.min() < 0.902
    assert abs(flip.mean() - 0.5) < 0.03


def test_the_margin_holds_every_augmented_view():
    sample = stored([[170.0, 175], [206, 175], [188, 190], [173, 217], [203, 217]], 400, 400)
    size = 128
    corners = np.array([[-0.5, -0.5, 1], [size - 0.5, -0.5, 1], [-0.5, size - 0.5, 1], [size - 0.5, size - 0.5, 1]])
    top, left, bottom, right = geometry.canvas_region(sample)
    for signs in np.ndindex(2, 2, 2, 2):
        sx, sy, sa, ss = (2 * s - 1 for s in signs)
        matrix = geometry.view_to_stored(
            sample, size, geometry.Augmentation(0.05 * np.array([sx, sy]), np.deg2rad(5 * sa), 1 + 0.1 * ss, False)
        )
        at = corners @ matrix.T
        assert (at[:, 0] + 0.5 > left - 0.2).all() and (at[:, 0] + 0.5 < right + 0.2).all()
        assert (at[:, 1] + 0.5 > top - 0.2).all() and (at[:, 1] + 0.5 < bottom + 0.2).all()


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
    plain, mirrored = (_first_batch(shards, Augment(**still, flip=p)) for p in (0.0, 1.0))
    assert (plain.image_B3HW - mirrored.image_B3HW.flip(3)).abs().max() < 2e-2
    table = torch.tensor(CLASS_FLIP, dtype=torch.uint8)
    same = (table[mirrored.label_BHW.flip(2).long()] == plain.label_BHW).float().mean()
    assert same > 0.995  # nearest neighbours of the few pixel centres that fall between two
    back = mirrored.points_BK2[:, list(LANDMARK_FLIP)]
    back[..., 0] = 63 - back[..., 0]
    assert (back - plain.points_BK2).abs().max() < 1e-3


def test_face_square_moves_picture_labels_and_points_alike(shards):
    still = Augment(shift=0.0, rotate=0.0, scale=0.0, flip=0.0)
    plain, near = (_first_batch(shards, still, face_square=f) for f in (3.2, 2.4))
    middle = (near.points_BK2 - 31.5) * 0.75 + 31.5
    assert (middle - plain.points_BK2).abs().max() < 1e-3
    small = torch.nn.functional.interpolate(near.image_B3HW, 48, mode="area")
    assert (small - plain.image_B3HW[..., 8:56, 8:56]).abs().mean() < 0.04
    labels = torch.nn.functional.interpolate(near.label_BHW[:, None].float(), 48)[:, 0]
    assert (labels == plain.label_BHW[:, 8:56, 8:56]).float().mean() > 0.9


def _first_batch(manifest: Manifest, augment: Augment, size: int = 64, **view: float):  # type: ignore[no-untyped-def]
    loader = Loader(SplitReader(manifest, "train"), View(size, "block", 1, augment, **view), 8, 1, torch.device("cpu"))
    return next(loader.batches(iter([(np.arange(8), np.zeros(8, np.int64))])))
